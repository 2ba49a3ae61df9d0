//! Who asks: the run, the job in it, and the cargo process ("build").

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::config::Config;

/// How far up the process tree cargo is looked for.
const MAX_PARENTS: usize = 6;

/// Run, job and build of this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The run.
    pub run: String,
    /// The job.
    pub job: String,
    /// The cargo process: number and start, so that it is unique on a machine.
    pub build: String,
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

impl Identity {
    /// Who asks, from the settings and the process tree.
    pub fn find(config: &Config, cwd: &Path) -> Self {
        let (build, started_in) = build();
        // Cargo runs each compiler in the package's own directory.
        let place = started_in.as_deref().unwrap_or(cwd);
        let place = place.file_name().map(|n| n.to_string_lossy().into_owned());
        Self {
            run: config.run.clone().unwrap_or_else(|| "local".into()),
            job: config.job.clone().or(place).unwrap_or_else(|| "local".into()),
            build,
        }
    }
}
