//! Entry frames and the records in them: what is read is what was written, a changed byte or another name is refused, and no
//! length is believed before it is within its bound.

use std::path::{Component, Path};

use bytes::Bytes;
use kiln_storage::entry::{decode, encode, max_frame, max_payload};
use kiln_storage::output::is_output_name;
use kiln_storage::record::{Member, result_key};
use kiln_storage::{Digest, ObjectName, Record};

const FIXED: usize = 36;

fn name() -> ObjectName {
    "records/scope/ab/unit/result.0".parse().expect("a name")
}

/// The frame of a payload, with a checksum that fits whatever the fuzzer did to its head: as an attacker writes it.
fn forged(compression: u32, payload_len: u64, stored: &[u8]) -> Vec<u8> {
    let mut frame = b"KILNENT\n".to_vec();
    frame.extend(1_u32.to_le_bytes());
    frame.extend(compression.to_le_bytes());
    frame.extend((name().as_str().len() as u32).to_le_bytes());
    frame.extend(payload_len.to_le_bytes());
    frame.extend((stored.len() as u64).to_le_bytes());
    frame.extend(name().as_str().as_bytes());
    let sum = *blake3::Hasher::new().update(&frame).update(stored).finalize().as_bytes();
    frame.extend(sum);
    frame.extend(stored);
    frame
}

/// What a frame holds is bounded, and framed again it is the same.
fn check_decoded(frame: Vec<u8>) {
    let Ok(payload) = decode(&name(), frame) else { return };
    assert!(payload.len() <= max_payload(&name()));
    let again = encode(&name(), &payload).expect("it was taken");
    assert!(again.len() as u64 <= max_frame(&name()));
    assert_eq!(&*decode(&name(), again).expect("its own"), &*payload);
}

/// No change of a byte, no other name and no other length is taken.
fn check_changed(payload: &[u8], at: usize, change: u8) {
    let frame = encode(&name(), payload).expect("within bounds");
    assert_eq!(&*decode(&name(), frame.clone()).expect("its own"), payload);
    let at = at % frame.len();
    let mut changed = frame.clone();
    changed[at] ^= change.max(1);
    assert!(decode(&name(), changed).is_err(), "byte {at} went unnoticed");
    assert!(decode(&name(), Bytes::from(frame.clone()).slice(..at)).is_err(), "cut off");
    assert!(decode(&ObjectName::blob(&Digest::of(payload)), frame).is_err(), "another's");
}

/// A record that is believed is written as what was read, belongs to its key, and has no output elsewhere.
fn check_record(payload: &[u8]) {
    let Ok(mut record) = serde_json::from_slice::<Record>(payload) else { return };
    let written = serde_json::to_vec(&record).expect("text");
    let again: Record = serde_json::from_slice(&written).expect("its own");
    assert_eq!(again, record);
    assert_eq!(serde_json::to_vec(&again).expect("text"), written);
    let key = result_key(&record.unit_key, &record.members, &record.values);
    assert!(key == record.result_key || record.check().is_err(), "it belongs to another key");
    // With the key that it should have, so that all else is looked at.
    record.result_key = key;
    if record.check().is_ok() {
        assert!(record.outputs.iter().all(|output| is_output_name(&output.name)));
        for output in &record.outputs {
            let path = Path::new("/t").join(&output.name);
            let plain = |part| matches!(part, Component::Normal(_));
            assert!(path.starts_with("/t") && path.components().skip(1).all(plain), "{path:?}");
        }
        let mut other = record.clone();
        other.values.push(Digest::of(b"another"));
        assert!(other.check().is_err(), "a value without a member");
        other = record.clone();
        other.members.push(Member::DiagnosticWidth);
        other.values.push(Digest::of(b"another"));
        assert!(other.check().is_err(), "another set of inputs under the same key");
    }
}

pub fn run(data: &[u8]) {
    check_decoded(data.to_vec());
    let Some((head, rest)) = data.split_at_checked(13) else { return };
    let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight"));
    check_decoded(forged(u32::from(head[0] % 3), number(1), rest));
    check_decoded(forged(1, number(1) % (1 << 24), rest));
    check_changed(rest, number(1) as usize % (FIXED + rest.len() + 96), head[9]);
    check_record(data);
    check_record(rest);
}
