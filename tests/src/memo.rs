//! What Kiln knows of the machine's toolchain, made once by a test program: a state directory that has it
//! ([`give`]) need not hash half a gigabyte again, as one that was used before. One that has to begin with nothing
//! is any other directory than a world's first.

use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::sync::OnceLock;

use crate::call::Call;
use crate::host::{SYSTEM_PATH, host};
use crate::server::Server;

const FILE_NAME: &str = "memo.v1";
const PAGE_BYTES: usize = 4096;

/// The file without its holes.
#[derive(Debug)]
struct Memo {
    bytes: u64,
    pages: Vec<(u64, Vec<u8>)>,
}

/// Makes a state directory that knows the toolchain and the linker.
pub fn give(kiln: &Path, dir: &Path) {
    static MEMO: OnceLock<Memo> = OnceLock::new();
    let memo = MEMO.get_or_init(|| make(kiln));
    std::fs::DirBuilder::new().mode(0o700).create(dir).expect("a state directory");
    let file = std::fs::File::create(dir.join(FILE_NAME)).expect("a memo");
    file.set_len(memo.bytes).expect("room");
    for (at, page) in &memo.pages {
        file.write_all_at(page, *at).expect("room");
    }
}

/// That of a small program that is linked.
fn make(kiln: &Path) -> Memo {
    let place = tempfile::Builder::new().prefix("km").tempdir_in(&host().tmp).expect("a directory");
    let (state, source) = (place.path().join("k"), place.path().join("one.rs"));
    std::fs::write(&source, "fn main() {}\n").expect("a source");
    let rustc = host().toolchain.join("rustc");
    let words = ["--crate-name", "one", "--emit", "link", "-o", "one", "one.rs"];
    let words = [&[rustc.to_str().expect("UTF-8")], &words[..]].concat();
    Call::new(kiln, place.path(), &words)
        .env("PATH", SYSTEM_PATH)
        .env("HOME", place.path())
        .env("KILN_DIR", &state)
        .run()
        .ok();
    if let Some(server) = Server::of(&state) {
        server.kill_if_alive();
    }
    let all = std::fs::read(state.join(FILE_NAME)).expect("a memo");
    let pages = all.chunks(PAGE_BYTES).enumerate().filter(|(_, page)| page.iter().any(|b| *b != 0));
    let pages = pages.map(|(at, page)| ((at * PAGE_BYTES) as u64, page.to_owned())).collect();
    Memo { bytes: all.len() as u64, pages }
}
