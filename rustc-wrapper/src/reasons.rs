//! The page of all reasons, and whether they are all: the table is [`kiln_storage::reasons`].

use kiln_storage::reasons::REASONS;
pub use kiln_storage::reasons::{note, note_with_hint};

/// The page `docs/reasons.md`.
pub fn page() -> String {
    let mut page = String::from(
        "# Reasons\n\nGenerated from `storage/src/reasons.rs`; `kiln doc reasons` prints it.\n\n\
         Every unit that is no hit has one of these, in `kiln stats` and in its event; \
         [build-scripts.md](build-scripts.md) has more on those of runs of build scripts.\n\n\
         | reason | outcome | what it means, what to change |\n| --- | --- | --- |\n",
    );
    for reason in REASONS {
        page.push_str(&format!(
            "| `{}` | {} | {} |\n",
            reason.word,
            reason.outcome,
            reason.whole()
        ));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every word that the sources use as a reason is in the table.
    #[test]
    fn every_reason_is_listed() {
        let sources = [
            include_str!("args.rs"),
            include_str!("args/parse.rs"),
            include_str!("inputs.rs"),
            include_str!("inputs/failed.rs"),
            include_str!("linker.rs"),
            include_str!("lookup.rs"),
            include_str!("publish.rs"),
            include_str!("script.rs"),
            include_str!("script/effects.rs"),
            include_str!("script/inputs.rs"),
            include_str!("script/tree.rs"),
            include_str!("script/unit.rs"),
            include_str!("session.rs"),
            include_str!("stdin.rs"),
            include_str!("tool.rs"),
            include_str!("unit.rs"),
            include_str!("verify.rs"),
            include_str!("wrapper.rs"),
        ];
        let starts = [
            "Bypass::new(\"",
            "unknown(\"",
            "Finding::new(\"",
            "Finding::none(\"",
            "reason: \"",
            "Nothing(\"",
            "Fault(\"",
            "Outcome::Miss, \"",
            "Outcome::Error, \"",
        ];
        let mut seen = 0;
        for source in sources {
            for start in starts {
                for part in source.split(start).skip(1) {
                    let word = part.split('"').next().unwrap();
                    if word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-' || b == b'8')
                        && word.contains('-')
                    {
                        seen += 1;
                        assert!(note(word).is_some(), "{word} is not listed");
                    }
                }
            }
        }
        assert!(seen > 25, "the scan finds the reasons ({seen})");
    }
}
