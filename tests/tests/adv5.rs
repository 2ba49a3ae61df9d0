//! scratch
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    unused,
    reason = "tests"
)]
use kiln_storage::testing::gha::{Call as Kind, Fault, READ, READ_WRITE, WRITE};
use kiln_tests::far::bucket::warnings;
use kiln_tests::far::cache::{Cache, Face};
use kiln_tests::samples::{build_all_kinds, of_all_kinds};
use kiln_tests::{Call, Done, Project, World, bucket, world};
use std::io::{Read, Write};
use std::time::Instant;

const MAIN: &[(&str, u8)] = &[("refs/heads/main", READ_WRITE)];

fn http(world: &World, path: &str) -> String {
    let mut s =
        std::os::unix::net::UnixStream::connect(world.kiln_dir().join("kiln.sock")).unwrap();
    s.write_all(
        format!("GET {path} HTTP/1.1\r\nhost: kiln\r\nconnection: close\r\n\r\n").as_bytes(),
    )
    .unwrap();
    let mut t = Vec::new();
    s.read_to_end(&mut t).unwrap();
    String::from_utf8_lossy(&t).into_owned()
}
fn files(dir: &std::path::Path, out: &mut Vec<std::path::PathBuf>) {
    for e in std::fs::read_dir(dir).unwrap().flatten() {
        let p = e.path();
        if p.is_dir() {
            files(&p, out)
        } else if p.is_file() {
            out.push(p)
        }
    }
}
/// All outputs; asserts no secret in any.
fn snoop(world: &World, env: &dyn Fn(Call) -> Call, secrets: &[&str]) -> String {
    let mut all = String::new();
    for args in [
        &["stats"][..],
        &["stats", "--format", "json"],
        &["doctor"],
        &["server", "status"],
        &["explain"],
        &["report"],
        &["env", "--for", "github"],
        &["settings"],
        &["config"],
    ] {
        let d = env(world.kiln(args)).run();
        all += &format!("--- kiln {args:?}: {:?}\n{}{}\n", d.status, d.stdout, d.stderr);
    }
    if world.server().is_some() {
        for p in [
            "/metrics",
            "/readyz",
            "/v1/server",
            "/healthz",
            "/runs",
            "/v1/nothing",
            "/v1/notes/ahead-1",
            "/v1/stats",
        ] {
            all += &format!("--- {p}\n{}\n", http(world, p));
        }
    }
    all += &std::fs::read_to_string(world.kiln_dir().join("server.log")).unwrap_or_default();
    for s in secrets {
        assert!(!all.contains(s), "SECRET {s} in {all}");
        let mut fs = Vec::new();
        files(&world.kiln_dir(), &mut fs);
        for f in fs {
            let b = std::fs::read(&f).unwrap_or_default();
            assert!(!b.windows(s.len()).any(|w| w == s.as_bytes()), "SECRET {s} in {f:?}");
        }
    }
    all
}

fn run_gha(
    name: &str,
    face: Face,
    prepare: impl Fn(Call) -> Call,
    secrets: &[&str],
    before: impl Fn(&Cache),
) {
    let (one, two) = (world!(), world!());
    let cache = Cache::start(face);
    let p1 = of_all_kinds(&one, "app");
    build_all_kinds(&one, &p1, cache.job(one.cargo(&p1, &["build"]), MAIN));
    one.kiln(&["server", "stop"]).run().ok();
    before(&cache);
    let p = of_all_kinds(&two, "app");
    p.write("low/src/lib.rs", "pub fn n() -> i32 { 40 + 4 }\n");
    let env = |c: Call| prepare(cache.job(c, MAIN));
    let t = Instant::now();
    let d = build_all_kinds(&two, &p, env(two.cargo(&p, &["build"])));
    let built = t.elapsed();
    println!(
        "=== {name}: built in {built:?} stderr kiln lines: {:?}",
        d.stderr.lines().filter(|l| l.contains("kiln")).collect::<Vec<_>>()
    );
    let s = &two.stats()["build"];
    println!("   hit_remote {} miss {} error {}", s["hit_remote"], s["miss"], s["error"]);
    let all = snoop(&two, &env, secrets);
    let t = Instant::now();
    let said = env(two.kiln(&["server", "stop"])).run();
    println!("   stop {:?}: {}{}", t.elapsed(), said.stdout, said.stderr);
    for l in warnings(&two.kiln_dir()) {
        println!("   LOG {l}");
    }
    for l in all.lines().filter(|l| {
        l.contains("before the GitHub")
            || l.contains("remote") && !l.contains("_remote") && l.len() < 300
    }) {
        println!("   > {l}");
    }
    for s in secrets {
        let log = std::fs::read_to_string(two.kiln_dir().join("server.log")).unwrap();
        assert!(!log.contains(s));
    }
    let c = cache.fake().counted();
    println!("   {c:?}");
}

#[test]
fn tokens() {
    let tok = kiln_storage::testing::gha::token(MAIN);
    let parts: Vec<&str> = tok.split('.').collect();
    let nl = format!("{tok}\n");
    let secrets = [parts[1]];
    for (name, t) in [
        ("newline", nl.as_str()),
        ("spaces", "hunter2 hunter2"),
        ("nonascii", "hünter2-hünter2"),
        ("opaque", "hunter2hunter2"),
        ("threeparts", "a.hunter2hunter2.c"),
    ] {
        run_gha(
            name,
            Face::V2,
            |c| c.env("ACTIONS_RUNTIME_TOKEN", t),
            &[secrets[0], "hunter2", "hünter2"],
            |_| {},
        );
    }
}
#[test]
fn scopes() {
    for (name, sc) in [
        ("none", &[][..]),
        ("writeonly", &[("refs/heads/main", WRITE)]),
        ("readonly", &[("refs/heads/main", READ)]),
        ("zero", &[("refs/heads/main", 0)]),
        ("pull-w-only", &[("refs/pull/1/merge", WRITE), ("refs/heads/main", READ)]),
    ] {
        run_gha(
            name,
            Face::V2,
            |c| c.env("ACTIONS_RUNTIME_TOKEN", kiln_storage::testing::gha::token(sc)),
            &[],
            |_| {},
        );
    }
}
#[test]
fn urls() {
    run_gha("url newline", Face::V2, |c| c, &[], |_| {});
    let u = std::sync::Mutex::new(String::new());
    for (face, var) in [(Face::V2, "ACTIONS_RESULTS_URL"), (Face::V1, "ACTIONS_CACHE_URL")] {
        for suffix in ["\n", " ", "hunter2path/", "?hunter2"] {
            run_gha(
                &format!("{face:?} {suffix:?}"),
                face,
                |c| {
                    let url = u.lock().unwrap().clone();
                    c.env(var, format!("{url}{suffix}"))
                },
                &["hunter2"],
                |cache| {
                    *u.lock().unwrap() = if face == Face::V2 {
                        cache.fake().results_url()
                    } else {
                        cache.fake().cache_url()
                    }
                },
            );
        }
        for bad in ["hunter2", "http://", "ftp://hunter2/", "http://user:hunter2@127.0.0.1:1/"] {
            run_gha(&format!("{face:?} {bad:?}"), face, |c| c.env(var, bad), &["hunter2"], |_| {});
        }
    }
}
#[test]
fn modes() {
    for m in ["none", "read", "READ ", "write", "write-only", "junk", "", "read,write"] {
        run_gha(&format!("mode {m:?}"), Face::V2, |c| c.env("ACTIONS_CACHE_MODE", m), &[], |_| {});
    }
}
#[test]
fn expires() {
    for n in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12] {
        for face in [Face::V2, Face::V1] {
            run_gha(
                &format!("{face:?} expires after {n} calls"),
                face,
                |c| c,
                &[],
                |cache| {
                    let used = cache.fake().counted().all_requests();
                    cache.fake().behave(|b| b.token_calls = Some(used + n));
                },
            );
        }
    }
}

use kiln_storage::testing::proxy::{HttpFault, When};
use kiln_tests::far::bucket::Bucket;

fn run_s3(
    name: &str,
    prepare: impl Fn(Call) -> Call,
    secrets: &[&str],
    at_build: impl Fn(&Bucket),
) {
    let (one, two) = (world!(), world!());
    let bucket = Bucket::open(&one).unwrap();
    let p1 = of_all_kinds(&one, "app");
    build_all_kinds(&one, &p1, bucket.before(one.cargo(&p1, &["build"])));
    one.kiln(&["server", "stop"]).run().ok();
    bucket.take();
    let p = of_all_kinds(&two, "app");
    p.write("low/src/lib.rs", "pub fn n() -> i32 { 40 + 4 }\n");
    let env = |c: Call| prepare(bucket.before(c));
    at_build(&bucket);
    let t = Instant::now();
    let d = build_all_kinds(&two, &p, env(two.cargo(&p, &["build"])));
    let built = t.elapsed();
    println!(
        "=== {name}: built in {built:?} stderr kiln lines: {:?}",
        d.stderr.lines().filter(|l| l.contains("kiln")).collect::<Vec<_>>()
    );
    let s = &two.stats()["build"];
    println!("   hit_remote {} miss {} error {}", s["hit_remote"], s["miss"], s["error"]);
    let all = snoop(&two, &env, secrets);
    let t = Instant::now();
    let said = env(two.kiln(&["server", "stop"])).run();
    println!("   stop {:?}: {}{}", t.elapsed(), said.stdout, said.stderr);
    for l in warnings(&two.kiln_dir()) {
        println!("   LOG {l}");
    }
    for l in all.lines().filter(|l| {
        l.contains("before s3") || l.contains("remote") && !l.contains("_remote") && l.len() < 300
    }) {
        println!("   > {l}");
    }
    for s in secrets {
        let log = std::fs::read_to_string(two.kiln_dir().join("server.log")).unwrap();
        assert!(!log.contains(s));
    }
    println!("   requests {} injected {}", bucket.proxy().seen().len(), bucket.proxy().injected());
    bucket.proxy().clear();
    // healed: new credentials
    bucket.before(two.kiln(&["server", "start"])).run().ok();
    let said = two.kiln(&["server", "stop"]).run();
    println!("   later: {}{}", said.stdout, said.stderr);
    let three = world!();
    let p = of_all_kinds(&three, "app");
    p.write("low/src/lib.rs", "pub fn n() -> i32 { 40 + 4 }\n");
    build_all_kinds(&three, &p, bucket.before(three.cargo(&p, &["build"])));
    println!("   third: hit_remote {}", three.stats()["build"]["hit_remote"]);
}
#[test]
fn s3_codes() {
    for (code, st) in [
        ("ExpiredToken", 400),
        ("InvalidToken", 400),
        ("TokenRefreshRequired", 400),
        ("RequestTimeTooSkewed", 403),
        ("InvalidAccessKeyId", 403),
        ("SignatureDoesNotMatch", 403),
        ("AuthorizationHeaderMalformed", 400),
        ("PermanentRedirect", 301),
    ] {
        for after in [0, 2, 4, 7] {
            run_s3(
                &format!("{code} after {after}"),
                |c| {
                    c.env("AWS_SESSION_TOKEN", "hunter2session")
                        .env("AWS_SECRET_ACCESS_KEY", "hunter2secret")
                },
                &["hunter2", "not-to-be-seen"],
                |b| b.proxy().inject(When::any().always().after(after), HttpFault::Code(st, code)),
            );
        }
    }
}
#[test]
fn s3_settings() {
    for (n, v) in [
        ("AWS_SESSION_TOKEN", "hunter2\n"),
        ("AWS_SECRET_ACCESS_KEY", "hunt er2"),
        ("AWS_ENDPOINT_URL_S3", "http://user:hunter2@127.0.0.1:1"),
        ("AWS_ENDPOINT_URL_S3", "hunter2:80"),
        ("AWS_REGION", "hunter2"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent/hunter2"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/hunter2"),
    ] {
        run_s3(
            &format!("{n}={v:?}"),
            |c| {
                let c = c.env(n, v);
                if n.contains("WEB") || n.contains("CONT") {
                    c.without("AWS_ACCESS_KEY_ID")
                        .without("AWS_SECRET_ACCESS_KEY")
                        .env("AWS_ROLE_ARN", "arn:hunter2")
                        .env("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
                } else {
                    c
                }
            },
            &["hunter2", "not-to-be-seen"],
            |_| {},
        );
    }
}

/// A workspace of 60 little libraries.
fn sixty(world: &World, name: &str) -> Project {
    let project = world.project(name);
    let members: Vec<String> = (0..60).map(|n| format!("\"c{n}\"")).collect();
    project.write(
        "Cargo.toml",
        format!("[workspace]\nresolver=\"2\"\nmembers = [{}]\n", members.join(",")),
    );
    for n in 0..60 {
        let dep = if n == 0 {
            String::new()
        } else {
            format!("c{} = {{ path = \"../c{}\" }}\n", n - 1, n - 1)
        };
        project.write(format!("c{n}/Cargo.toml").as_str(), format!("[package]\nname=\"c{n}\"\nversion=\"0.1.0\"\nedition=\"2021\"\n[dependencies]\n{dep}"));
        project
            .write(format!("c{n}/src/lib.rs").as_str(), format!("pub fn n() -> i32 {{ {n} }}\n"));
    }
    project
}
/// Listens and never accepts, backlog full: SYNs are dropped.
fn black_hole() -> (std::net::TcpListener, Vec<std::net::TcpStream>) {
    let l = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut held = Vec::new();
    let a = l.local_addr().unwrap();
    // fill: rust backlog is 128
    for _ in 0..400 {
        match std::net::TcpStream::connect_timeout(&a, std::time::Duration::from_millis(30)) {
            Ok(s) => held.push(s),
            Err(_) => break,
        }
    }
    println!("held {}", held.len());
    (l, held)
}
fn hole(name: &str, endpoint: &str, jobs: &str, gha: bool) {
    let world = world!();
    let p = sixty(&world, "ws");
    let e = |c: Call| {
        if gha {
            c.env("KILN_STORAGE", "gha://")
                .env("ACTIONS_RESULTS_URL", endpoint)
                .env("ACTIONS_CACHE_SERVICE_V2", "1")
                .env("ACTIONS_RUNTIME_TOKEN", kiln_storage::testing::gha::token(MAIN))
                .env("KILN_JOB", "dev")
        } else {
            c.env("KILN_STORAGE", "s3://b/p").env("KILN_JOB", "dev").envs(&[
                ("AWS_ENDPOINT_URL_S3", endpoint),
                ("AWS_ACCESS_KEY_ID", "k"),
                ("AWS_SECRET_ACCESS_KEY", "s"),
            ])
        }
    };
    let t = Instant::now();
    p.wipe();
    world.cargo(&p, &["check", "-j", jobs]).env("KILN_DIR", world.at("k0")).run().ok();
    let plain = t.elapsed();
    p.wipe();
    let t = Instant::now();
    e(world.cargo(&p, &["check", "-j", jobs])).run().ok();
    let with = t.elapsed();
    let s = world.stats();
    let info = kiln_tests::server::Server::info(&world.kiln_dir());
    println!(
        "=== {name} -j{jobs}: {plain:?} without, {with:?} with; {} miss; requests {}; fault {}",
        s["build"]["miss"], info["remote"]["requests"], info["remote"]["fault"]
    );
    for l in warnings(&world.kiln_dir()) {
        println!("   LOG {l}");
    }
    let t = Instant::now();
    let said = world.kiln(&["server", "stop"]).run();
    println!("   stop {:?}: {}{}", t.elapsed(), said.stdout, said.stderr);
    world
        .call(&world.programs.kiln, world.root(), &["server", "stop"])
        .env("KILN_DIR", world.at("k0"))
        .run();
}
#[test]
fn holes() {
    for jobs in ["1", "2", "8"] {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let a = format!("http://{}", silent.local_addr().unwrap());
        let (l, held) = black_hole();
        let b = format!("http://{}", l.local_addr().unwrap());
        for gha in [false, true] {
            hole(&format!("accepts and is silent gha={gha}"), &a, jobs, gha);
            hole(&format!("SYN dropped gha={gha}"), &b, jobs, gha);
        }
        drop(held);
    }
}

/// What lifecycle rules take away, in all combinations; who builds then is right and heals, and a third hits.
#[test]
fn lifecycle() {
    let dirs = ["results", "packed", "together", "notes", "rejected", "used", "events"];
    for combo in [
        &["results"][..],
        &["packed"],
        &["together"],
        &["notes"],
        &["results", "packed"],
        &["packed", "together"],
        &["results", "together"],
        &["packed", "notes"],
        &["results", "packed", "together"],
        &["together", "notes"],
        &["results", "notes"],
        &["results", "packed", "together", "notes"],
    ] {
        for other_job in [false, true] {
            let (one, two, three, four) = (world!(), world!(), world!(), world!());
            let bucket = Bucket::open(&one).unwrap();
            let go = |world: &World, job: &str| {
                let p = of_all_kinds(world, "app");
                build_all_kinds(
                    world,
                    &p,
                    bucket.before(world.cargo(&p, &["build"])).env("KILN_JOB", job),
                );
                let s = &world.stats()["build"];
                let i = kiln_tests::server::Server::info(&world.kiln_dir());
                (
                    s["hit_remote"].as_u64().unwrap(),
                    s["miss"].as_u64().unwrap(),
                    i["remote"]["damaged"].as_u64().unwrap(),
                )
            };
            let stop = |world: &World| {
                let d = world.kiln(&["server", "stop"]).run().ok();
                format!("{}{}", d.stdout, d.stderr).replace('\n', " | ")
            };
            go(&one, "dev");
            stop(&one);
            let gone: usize = combo.iter().map(|d| bucket.remove(d)).sum();
            let a = go(&two, if other_job { "two" } else { "dev" });
            let sa = stop(&two);
            let b = go(&three, if other_job { "three" } else { "dev" });
            let sb = stop(&three);
            let c = go(&four, "dev");
            println!(
                "{combo:?} other={other_job} gone {gone}: second {a:?} [{sa}] third {b:?} [{sb}] fourth {c:?} {:?} {:?}",
                warnings(&two.kiln_dir()),
                warnings(&three.kiln_dir())
            );
            assert_eq!(b.0, 5, "third does not hit");
            assert_eq!(c.0, 5, "fourth does not hit");
        }
    }
}

fn wait(mut f: impl FnMut() -> bool) -> bool {
    let t = Instant::now();
    while t.elapsed().as_secs() < 40 {
        if f() {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    false
}

#[test]
fn kill_s3() {
    for n in 0..16 {
        let (one, two, three) = (world!(), world!(), world!());
        let bucket = Bucket::open(&one).unwrap();
        bucket.proxy().inject(When::next("PUT", "").after(n).always(), HttpFault::Hold);
        let go = |world: &World, mode: &str| {
            let p = of_all_kinds(world, "app");
            build_all_kinds(
                world,
                &p,
                bucket.before(world.cargo(&p, &["build"])).env("KILN_MODE", mode),
            );
            let s = &world.stats()["build"];
            let i = kiln_tests::server::Server::info(&world.kiln_dir());
            (
                s["hit_remote"].as_u64().unwrap(),
                s["miss"].as_u64().unwrap(),
                i["remote"]["damaged"].as_u64().unwrap(),
            )
        };
        go(&one, "read-write");
        let server = one.server().unwrap();
        let stopping = one.kiln(&["server", "stop"]).spawn();
        let held = wait(|| bucket.proxy().injected() > 0 || !server.is_alive());
        let injected = bucket.proxy().injected();
        server.kill_if_alive();
        stopping.wait();
        bucket.proxy().clear();
        let counts: Vec<_> = ["results", "packed", "together", "notes", "events"]
            .iter()
            .map(|d| bucket.objects(d).len())
            .collect();
        let a = go(&two, "read");
        let wa = warnings(&two.kiln_dir());
        bucket.before(one.kiln(&["server", "start"])).run().ok();
        let s = one.kiln(&["server", "stop"]).run().ok();
        let b = go(&three, "read");
        println!(
            "n={n} held={held} injected={injected} objects {counts:?}: reader {a:?} {wa:?}; again: {} third {b:?} {:?}",
            s.stdout.replace('\n', "|"),
            warnings(&three.kiln_dir())
        );
        assert_eq!(b.0, 5);
        assert_eq!(a.2, 0);
        if injected == 0 {
            break;
        }
    }
}
#[test]
fn kill_gha() {
    for face in [Face::V2, Face::V1] {
        for kind in [Kind::Create, Kind::Upload, Kind::Finalize, Kind::Lookup, Kind::Download] {
            for n in 0..6 {
                let (one, two, three, four) = (world!(), world!(), world!(), world!());
                let cache = Cache::start(face);
                let go = |world: &World, mode: &str| {
                    let p = of_all_kinds(world, "app");
                    build_all_kinds(
                        world,
                        &p,
                        cache.job(world.cargo(&p, &["build"]), MAIN).env("KILN_MODE", mode),
                    );
                    let s = &world.stats()["build"];
                    let i = kiln_tests::server::Server::info(&world.kiln_dir());
                    (
                        s["hit_remote"].as_u64().unwrap(),
                        s["miss"].as_u64().unwrap(),
                        i["remote"]["damaged"].as_u64().unwrap(),
                    )
                };
                go(&one, "read-write");
                let base = cache.fake().counted();
                let mut script: Vec<Option<Fault>> = vec![None; n];
                script.extend(vec![Some(Fault::Stall); 100]);
                cache.fake().script(kind, script);
                let server = one.server().unwrap();
                let stopping = one.kiln(&["server", "stop"]).spawn();
                let held = wait(|| cache.fake().counted().injected > 0 || !server.is_alive());
                let injected = cache.fake().counted().injected;
                server.kill_if_alive();
                stopping.wait();
                cache.fake().heal();
                let a = go(&two, "read");
                let wa = warnings(&two.kiln_dir());
                // two jobs: the killed one, and another one that makes the same
                cache.job(one.kiln(&["server", "start"]), MAIN).run().ok();
                let s = one.kiln(&["server", "stop"]).run().ok();
                let b = go(&three, "read-write");
                let s3 = three.kiln(&["server", "stop"]).run().ok();
                let c = go(&four, "read");
                let cnt = cache.fake().counted();
                println!(
                    "{face:?} {kind:?} n={n} held={held} injected={injected}: reader {a:?} {wa:?}; again: {} third {b:?} {} {:?} fourth {c:?} reserved {} finalized {}",
                    s.stdout.replace('\n', "|"),
                    s3.stdout.replace('\n', "|"),
                    warnings(&three.kiln_dir()),
                    cnt.reserved,
                    cnt.finalized
                );
                assert_eq!(b.0, 5);
                assert_eq!(c.0, 5);
                let _ = base;
                if injected == 0 {
                    break;
                }
            }
        }
    }
}
