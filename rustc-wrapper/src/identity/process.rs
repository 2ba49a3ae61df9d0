//! Where this process stands: the cargo above it, the directory that was started in, the machine. Used by
//! [`super::Identity::find`] alone.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// How far up the process tree cargo is looked for.
const MAX_PARENTS: usize = 6;

/// What is known of a process without asking a service.
#[derive(Debug, Clone, Default)]
pub(super) struct Here {
    /// The cargo process: number and start, so that it is unique on a machine.
    pub(super) build: String,
    /// The directory that cargo was started in.
    pub(super) place: PathBuf,
    /// What the machine calls itself.
    pub(super) host: String,
}

impl Here {
    /// Looks around. A process that no cargo started is told by its parent and its own directory.
    pub(super) fn find(cwd: &Path) -> Self {
        let (build, started_in) = build();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        // Cargo runs each compiler in the package's own directory.
        Self { build, place: started_in.unwrap_or_else(|| cwd.to_owned()), host }
    }
}

/// Name, parent and start of a process.
struct Process {
    name: String,
    parent: u32,
    start: String,
}

fn process(pid: u32) -> Option<Process> {
    // One read: the kernel does not tell the size of these files.
    let mut buffer = [0_u8; 1024];
    let read = File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut buffer).ok()?;
    let stat = String::from_utf8_lossy(&buffer[..read]);
    // The name is in parentheses and may hold anything.
    let (head, tail) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    Some(Process {
        name: head.split_once('(')?.1.to_owned(),
        parent: fields.get(1)?.parse().ok()?,
        start: (*fields.get(19)?).to_owned(),
    })
}

/// The nearest cargo above this process, else the parent; and the directory that cargo was started in.
fn build() -> (String, Option<PathBuf>) {
    let parent = std::os::unix::process::parent_id();
    let mut pid = parent;
    for _ in 0..MAX_PARENTS {
        let Some(found) = process(pid) else { break };
        if found.name == "cargo" {
            let place = std::fs::read_link(format!("/proc/{pid}/cwd")).ok();
            return (format!("{pid}-{}", found.start), place);
        }
        pid = found.parent;
    }
    let start = process(parent).map(|p| p.start).unwrap_or_default();
    (format!("{parent}-{start}"), None)
}
