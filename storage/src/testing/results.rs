//! Results for tests: records with blobs, and a unit of the size and kind of a real one. Called by the
//! tests of remotes.

use bytes::Bytes;

use super::bodies::noise;
use crate::backend::{Backend, Body};
use crate::digest::Digest;
use crate::encode::Encoder;
use crate::key::{ObjectName, ResultKey, Scope, UnitKey};
use crate::record::{
    Content, Cost, EnvForm, Member, Output, Producer, RECORD_VERSION, Record, TokenPath, UnitName,
    result_key,
};
use crate::remote::ResultName;

/// The scope of these results.
pub fn scope() -> Scope {
    Scope::new("owner/repository", "refs/heads/main")
}

/// The key of a unit with a name.
pub fn unit(name: &str) -> UnitKey {
    let mut encoder = Encoder::new("kiln test unit");
    encoder.text("name", name);
    UnitKey::new(encoder.finish())
}

/// A result of a unit, for a value of its one variable, with these outputs: the first two are metadata and
/// library.
pub fn result(unit_name: &str, value: &str, blobs: &[Bytes]) -> (ResultName, Record) {
    let unit = unit(unit_name);
    let members = vec![
        Member::File(TokenPath("<workspace>/src/lib.rs".to_owned())),
        Member::Env("VALUE".to_owned(), EnvForm::Raw),
    ];
    let values = vec![Digest::of(unit_name.as_bytes()), Digest::of(value.as_bytes())];
    let outputs = blobs.iter().enumerate().map(|(i, bytes)| Output {
        name: match i {
            0 => format!("lib{unit_name}.rmeta"),
            1 => format!("lib{unit_name}.rlib"),
            _ => format!("{unit_name}-{i}.o"),
        },
        content: Content::Blob { digest: Digest::of(bytes), size: bytes.len() as u64 },
        executable: false,
        mode: None,
    });
    let record = Record {
        version: RECORD_VERSION,
        unit_key: unit,
        result_key: result_key(&unit, &members, &values),
        unit: UnitName { crate_name: unit_name.to_owned(), ..UnitName::default() },
        parts: Vec::new(),
        members,
        values,
        variables: Default::default(),
        outputs: outputs.collect(),
        status: 0,
        stdout: String::new(),
        stderr: String::new(),
        cost: Cost { wall_ms: 1500, cpu_ms: 2000 },
        producer: Producer { created_at_ms: 1_700_000_000_000, ..Producer::default() },
        conservative: Vec::new(),
    };
    (name_of(&record, 0), record)
}

/// The name of a record in [`scope`].
pub fn name_of(record: &Record, generation: u32) -> ResultName {
    let (unit, result): (UnitKey, ResultKey) = (record.unit_key, record.result_key);
    ResultName { scope: scope(), unit, result, generation }
}

/// Puts blobs where a server keeps them.
pub async fn keep(local: &dyn Backend, blobs: &[Bytes]) {
    for bytes in blobs {
        let name = ObjectName::blob(&Digest::of(bytes));
        local.put_if_absent(&name, Body::Bytes(bytes.clone())).await.unwrap();
    }
}

/// Outputs of a size and compressibility like those of a crate in a debug build: metadata, and a library that
/// holds the metadata too.
pub fn outputs_like_a_crate(seed: u64, rmeta_bytes: usize, rlib_bytes: usize) -> Vec<Bytes> {
    let rmeta = compressible(seed, rmeta_bytes);
    let mut rlib = b"!<arch>\nlib.rmeta/      0           0     0     644     ".to_vec();
    rlib.extend(&rmeta);
    rlib.extend(compressible(seed + 1_000_000, rlib_bytes.saturating_sub(rmeta_bytes)));
    vec![rmeta, rlib.into()]
}

/// Bytes that compress to about a third.
fn compressible(seed: u64, len: usize) -> Bytes {
    let words = noise(seed, len.div_ceil(4) + 16);
    let mut bytes = Vec::with_capacity(len + 16);
    for word in words.chunks(4) {
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"::core::fmt\0");
    }
    bytes.truncate(len);
    bytes.into()
}
