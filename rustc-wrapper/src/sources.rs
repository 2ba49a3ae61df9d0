//! Questions about source texts that need no parser: over-estimates, never misses. Pure.

/// Whether assembly in the source includes a file, which dep-info does not tell. The source may be a
/// text that another one includes.
pub fn includes_assembly(text: &str) -> bool {
    let directive = |line: &str| line.trim_start().starts_with(".include");
    text.contains(".incbin")
        || (text.contains("asm!") && text.contains(".include"))
        || text.lines().any(directive)
}

/// Names of native libraries in `#[link(name = "...")]`: every literal behind `name =` in a source
/// that has such an attribute.
pub fn link_names(text: &str) -> Vec<&str> {
    if !text.contains("link(") && !text.contains("link (") {
        return Vec::new();
    }
    let parts = text.split("name").skip(1);
    let literal = |rest: &'_ str| {
        let rest = rest.trim_start().strip_prefix('=')?.trim_start();
        let rest = rest.trim_start_matches(['r', '#']).strip_prefix('"')?;
        let name = &rest[..rest.find('"')?];
        let good = !name.is_empty() && name.len() < 128 && !name.contains(['/', '\\', '\n']);
        good.then_some(name.len())
    };
    parts
        .filter_map(|part| {
            let len = literal(part)?;
            let start = part.find('"')? + 1;
            part.get(start..start + len)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_libraries() {
        let text = "#[link(name = \"foo\", kind = \"static\")] extern \"C\" {}\n\
                    #[cfg_attr(x, link(kind=\"dylib\", name=\"bar\"))] let name = 3;";
        assert_eq!(link_names(text), ["foo", "bar"]);
        assert!(link_names("let name = \"x\";").is_empty());
    }

    #[test]
    fn assembly_that_includes() {
        assert!(includes_assembly("global_asm!(\".incbin \\\"x\\\"\")"));
        assert!(includes_assembly(".text\nx: .incbin \"x\"\n"));
        assert!(includes_assembly(".text\n\t.include \"x\"\n"));
        assert!(!includes_assembly("asm!(\"nop\")"));
        assert!(!includes_assembly("// .include of something"));
    }
}
