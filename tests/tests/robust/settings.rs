//! Theme: `kiln.toml` of the server that the wrapper starts: what it says holds, and a mistake in it costs no build.

#![allow(clippy::unwrap_used, reason = "tests")]

use kiln_tests::samples::{build_app, small_app};
use kiln_tests::server::Server;
use kiln_tests::world;

#[test]
fn the_local_server_goes_by_its_file() {
    let world = world!();
    let project = small_app(&world, "app");
    std::fs::create_dir_all(world.kiln_dir()).unwrap();
    let file = world.kiln_dir().join("kiln.toml");
    // Nobody is behind it, which is no fault of a build; it listens where the wrapper looks.
    std::fs::write(&file, "listen = '127.0.0.1:1'\nupstream = 'http://127.0.0.1:1'\ndrain = 0\n")
        .unwrap();
    build_app(&world, &project);
    world.assert_all_hit(&build_app(&world, &project));
    assert_eq!(Server::info(&world.kiln_dir())["remote"]["place"], "http://127.0.0.1:1");
    let said = world.kiln(&["doctor"]).run().stdout;
    assert!(said.contains(&format!("ok    the local server reads {}", file.display())), "{said}");
    assert!(!said.contains("another KILN_UPSTREAM"), "{said}");
    world.kiln(&["server", "stop"]).run().ok();

    std::fs::write(&file, "upstream = 'http://127.0.0.1:1'\nidel = 1\n").unwrap();
    assert_eq!(build_app(&world, &project).compiled().len(), 2);
    let said = world.kiln(&["doctor"]).run().fails().stdout;
    let why = format!("the local server does not start: {}, line 2: ", file.display());
    assert!(said.contains(&why) && said.contains("is idle meant?"), "{said}");
}
