//! The `Range` header of RFC 9110, one range of bytes. Pure.

/// What part of an object is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// All of it.
    Whole,
    /// Bytes `first..=last`, within the object.
    Part {
        /// The first byte.
        first: u64,
        /// The last byte.
        last: u64,
    },
    /// Nothing that is there.
    Unsatisfiable,
}

/// Reads a `Range` header for an object of `size` bytes. Anything but one well-formed range of
/// bytes is ignored, as the RFC allows.
pub(crate) fn parse(header: Option<&str>, size: u64) -> Asked {
    let spec = header
        .and_then(|header| header.trim().strip_prefix("bytes="))
        .and_then(|spec| spec.trim().split_once('-'));
    let Some((first, last)) = spec else {
        return Asked::Whole;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    match (first, number(first), last, number(last)) {
        ("", _, _, Some(0)) => Asked::Unsatisfiable,
        ("", _, _, Some(suffix)) if size > 0 => {
            Asked::Part { first: size.saturating_sub(suffix), last: size - 1 }
        }
        ("", _, _, Some(_)) => Asked::Unsatisfiable,
        (_, Some(first), "", _) => within(first, u64::MAX, size),
        (_, Some(first), _, Some(last)) if first <= last => within(first, last, size),
        _ => Asked::Whole,
    }
}

fn within(first: u64, last: u64, size: u64) -> Asked {
    if first < size {
        let last = last.min(size - 1);
        Asked::Part { first, last }
    } else {
        Asked::Unsatisfiable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let check = |header, size, asked| assert_eq!(parse(Some(header), size), asked, "{header}");
        let part = |first, last| Asked::Part { first, last };
        assert_eq!(parse(None, 10), Asked::Whole);
        check("bytes=0-3", 10, part(0, 3));
        check("bytes=2-", 10, part(2, 9));
        check("bytes=-3", 10, part(7, 9));
        check("bytes=-30", 10, part(0, 9));
        check("bytes=5-99999999999999999999999", 10, part(5, 9));
        for none in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
            check(none, 10, Asked::Unsatisfiable);
        }
        check("bytes=0-", 0, Asked::Unsatisfiable);
        check("bytes=-1", 0, Asked::Unsatisfiable);
        for ignored in ["bytes=", "bytes=-", "bytes=a-b", "bytes=3-1", "lines=0-1", "bytes=0-1,3-4"]
        {
            check(ignored, 10, Asked::Whole);
        }
    }
}
