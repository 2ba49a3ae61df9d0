//! Projects that more than one theme uses.

use crate::project::Project;
use crate::registry;
use crate::world::World;

/// A workspace whose package `one` uses crates of the registry with build scripts and procedural
/// macros, and whose program `two` uses `one`. The sources are provided to the world.
pub fn small_workspace(world: &World, fetched: &Project) -> Project {
    let project = world.project("small");
    world.provide_sources(fetched);
    let manifest = |name: &str, dependencies: &str| {
        format!(
            "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n\
             [dependencies]\n{dependencies}"
        )
    };
    let registry_crates: String =
        registry::SMALL.iter().map(|(name, spec)| format!("{name} = {spec}\n")).collect();
    project.write("Cargo.toml", "[workspace]\nmembers = [\"one\", \"two\"]\nresolver = \"2\"\n");
    project.write("one/Cargo.toml", manifest("one", &registry_crates));
    project.write(
        "one/src/lib.rs",
        "#[derive(serde::Serialize, serde::Deserialize)]\npub struct One {\n    pub n: i32,\n}\n\
         pub fn n(text: &str) -> anyhow::Result<usize> {\n    \
         Ok(memchr::memchr(b'x', text.as_bytes()).unwrap_or(0) + libc::EOF.unsigned_abs() as usize)\n}\n\
         pub fn show(n: u8) -> String {\n    itoa::Buffer::new().format(n).into()\n}\n\
         #[cfg(test)]\nmod tests {\n    #[test]\n    fn n() {\n        assert_eq!(super::n(\"ax\").unwrap(), 2);\n    }\n}\n",
    );
    project.write("two/Cargo.toml", manifest("two", "one = { path = \"../one\" }\n"));
    project.write("two/src/main.rs", "fn main() { println!(\"{}\", one::show(7)); }\n");
    project
}
