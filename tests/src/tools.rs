//! [`Tools`]: stand-ins for the programs that build scripts call, first in `PATH`, and what they noted.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::world::World;

/// The names under which the stand-in is put.
const NAMES: &[&str] = &[
    "cc",
    "gcc",
    "c++",
    "g++",
    "clang",
    "clang++",
    "ar",
    "as",
    "ranlib",
    "nm",
    "make",
    "gmake",
    "cmake",
    "ninja",
    "pkg-config",
    "pkgconf",
    "git",
    "perl",
    "sh",
    "bash",
    "python3",
];

/// One run of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolRun {
    /// Its name.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its working directory.
    pub cwd: String,
}

impl ToolRun {
    fn parse(line: &str) -> Self {
        let value: Value = serde_json::from_str(line).expect("a record of the stand-in");
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let args = value["args"].as_array().into_iter().flatten().map(text).collect();
        Self { program: text(&value["program"]), args, cwd: text(&value["cwd"]) }
    }
}

/// Stand-ins for tools in a directory of a world.
#[derive(Debug)]
pub struct Tools {
    dir: PathBuf,
}

impl Tools {
    /// Puts the stand-ins into the world.
    pub fn install(world: &World) -> Self {
        let dir = world.at("tools");
        std::fs::create_dir(&dir).expect("a directory");
        let standin = world.programs.standin.with_file_name("tool-standin");
        for name in NAMES {
            std::fs::copy(&standin, dir.join(name)).expect("a copy of the stand-in");
        }
        std::fs::write(dir.join("tools.jsonl"), "").expect("a log");
        Self { dir }
    }

    /// Their directory, which belongs at the front of `PATH`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The runs since the last time, in order.
    pub fn take(&self) -> Vec<ToolRun> {
        let log = self.dir.join("tools.jsonl");
        let text = std::fs::read_to_string(&log).expect("a log");
        std::fs::write(&log, "").expect("a log");
        text.lines().map(ToolRun::parse).collect()
    }
}
