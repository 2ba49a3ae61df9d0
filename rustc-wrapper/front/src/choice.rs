//! Whether a run is handed to Kiln ([`is_wanted`]), and where the real program is ([`real_path`]).
//! Pure.

use crate::block::Told;

/// The last component of a path.
fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// Whether a run is for Kiln, by the variables that it was started with.
///
/// Cargo tells a build script its `RUSTC_WRAPPER` wherever one is configured. One that is not the
/// wrapper of then, or does not at least have Kiln's name, says that the user builds without Kiln now.
pub fn is_wanted<'a>(told: &Told<'_>, variable: impl Fn(&[u8]) -> Option<&'a [u8]>) -> bool {
    let off = |setting: &[u8]| variable(setting) == Some(b"off".as_slice());
    if told.kiln.is_empty() || off(b"KILN_BUILD_SCRIPTS") || off(b"KILN_MODE") {
        return false;
    }
    variable(b"RUSTC_WRAPPER")
        .filter(|wrapper| !wrapper.is_empty())
        .is_some_and(|wrapper| wrapper == told.wrapper || name(wrapper) == name(told.kiln))
}

/// Writes the path of the real program with a zero at its end: a name in the directory of a program.
/// None when there is no room for it, or nothing to make it of.
pub fn real_path<'a>(program: &[u8], real: &[u8], into: &'a mut [u8]) -> Option<&'a [u8]> {
    let directory = program.iter().rposition(|byte| *byte == b'/')? + 1;
    if real.is_empty() || directory + real.len() >= into.len() {
        return None;
    }
    let path = program.iter().take(directory).chain(real).chain(&[0]);
    let mut len = 0;
    for (to, from) in into.iter_mut().zip(path) {
        *to = *from;
        len += 1;
    }
    into.get(..len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: Told<'_> = Told { kiln: b"/opt/bin/kiln", wrapper: b"/usr/my-kiln", real: b"x" };

    fn wanted(told: &Told<'_>, variables: &[(&str, &'static str)]) -> bool {
        let find = |name: &[u8]| variables.iter().find(|(n, _)| n.as_bytes() == name);
        is_wanted(told, |name| find(name).map(|(_, value)| value.as_bytes()))
    }

    #[test]
    fn kiln_is_wanted_where_cargo_builds_with_it() {
        for (wrapper, expected) in [
            ("/usr/my-kiln", true),
            ("kiln", true),
            ("/elsewhere/kiln", true),
            ("my-kiln", false),
            ("/usr/my-kiln2", false),
            ("/usr/bin/sccache", false),
            ("kiln/", false),
            ("", false),
        ] {
            assert_eq!(wanted(&TOLD, &[("RUSTC_WRAPPER", wrapper)]), expected, "{wrapper:?}");
        }
        assert!(!wanted(&TOLD, &[]));
        let unfilled = Told { kiln: b"", wrapper: b"kiln", real: b"x" };
        assert!(!wanted(&unfilled, &[("RUSTC_WRAPPER", "kiln")]));
        let nameless = Told { wrapper: b"", ..TOLD };
        assert!(!wanted(&nameless, &[("RUSTC_WRAPPER", "")]));
    }

    #[test]
    fn it_is_switched_off_by_its_settings() {
        for (name, value, expected) in [
            ("KILN_BUILD_SCRIPTS", "off", false),
            ("KILN_BUILD_SCRIPTS", "on", true),
            ("KILN_BUILD_SCRIPTS", "", true),
            ("KILN_BUILD_SCRIPTS", "of", true),
            ("KILN_MODE", "off", false),
            ("KILN_MODE", "read", true),
        ] {
            let variables = [("RUSTC_WRAPPER", "kiln"), (name, value)];
            assert_eq!(wanted(&TOLD, &variables), expected, "{name}={value}");
        }
    }

    #[test]
    fn the_real_program_is_beside_the_front() {
        let path = |program: &str, real: &str, room: usize| {
            let mut into = vec![b'?'; room];
            let path = real_path(program.as_bytes(), real.as_bytes(), &mut into);
            path.map(|path| String::from_utf8(path.to_vec()).unwrap())
        };
        assert_eq!(path("/a/b/front", "x.real", 64).as_deref(), Some("/a/b/x.real\0"));
        assert_eq!(path("/a/b/front (deleted)", "x.real", 64).as_deref(), Some("/a/b/x.real\0"));
        assert_eq!(path("./front", "x.real", 9).as_deref(), Some("./x.real\0"));
        assert_eq!(path("./front", "x.real", 8), None);
        assert_eq!(path("front", "x.real", 64), None);
        assert_eq!(path("/a/front", "", 64), None);
        assert_eq!(path("", "x.real", 64), None);
    }
}
