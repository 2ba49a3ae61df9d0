//! Stub.
use kiln_storage::record::Member;
use std::io;
use std::path::Path;
/// A note.
#[derive(Debug, Clone)]
pub struct Note {
    /// Pid.
    pub pid: u32,
    /// Members.
    pub members: Vec<Member>,
    /// Why not.
    pub refused: Option<String>,
}
/// Notes.
#[derive(Debug)]
pub struct Notes;
impl Notes {
    /// Begin.
    pub fn begin(_dir: &Path, _out: &Path) -> io::Result<Self> {
        Ok(Self)
    }
    /// Read.
    pub fn read(&self) -> io::Result<Vec<Note>> {
        Ok(Vec::new())
    }
}
