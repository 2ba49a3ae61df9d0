//! [`Validity`]: from when until when a certificate holds, as it says itself. Reads so much of X.509 and no more; pure.

use kiln_storage::calendar::days;

/// Seconds since 1970, both of them within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    /// From then on.
    pub not_before: i64,
    /// Until then.
    pub not_after: i64,
}

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version of a certificate, which may be missing.
const VERSION: u8 = 0xa0;

impl Validity {
    /// Of a certificate in DER; none where it is none.
    pub(crate) fn of(certificate: &[u8]) -> Option<Self> {
        let inner = content(element(certificate)?, SEQUENCE)?;
        let mut rest = content(element(inner)?, SEQUENCE)?;
        // The version perhaps, the number, the algorithm, who signed.
        for _ in 0..3 + usize::from(element(rest)?.tag == VERSION) {
            rest = element(rest)?.rest;
        }
        let both = content(element(rest)?, SEQUENCE)?;
        let from = element(both)?;
        Some(Self { not_before: time(&from)?, not_after: time(&element(from.rest)?)? })
    }
}

/// One element of DER, and what follows it.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    rest: &'a [u8],
}

fn element(bytes: &[u8]) -> Option<Element<'_>> {
    let (&tag, bytes) = bytes.split_first()?;
    let (&first, mut bytes) = bytes.split_first()?;
    let mut len = usize::from(first);
    if first & 0x80 != 0 {
        let (digits, rest) = bytes.split_at_checked(usize::from(first & 0x7f))?;
        if digits.is_empty() || digits.len() > 4 {
            return None;
        }
        len = digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit));
        bytes = rest;
    }
    let (content, rest) = bytes.split_at_checked(len)?;
    Some(Element { tag, content, rest })
}

fn content(element: Element<'_>, tag: u8) -> Option<&[u8]> {
    (element.tag == tag).then_some(element.content)
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` as seconds since 1970.
fn time(element: &Element<'_>) -> Option<i64> {
    let text = std::str::from_utf8(element.content).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = text.split_at_checked(if element.tag == UTC_TIME { 2 } else { 4 })?;
    let year: i64 = match (element.tag, year.parse::<i64>().ok()?) {
        (UTC_TIME, year @ 50..) => 1900 + year,
        (UTC_TIME, year) => 2000 + year,
        (GENERALIZED_TIME, year) => year,
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let (month, day) = (part(0)?, part(2)?);
    if rest.len() != 10 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(((days(year, month, day) * 24 + part(4)?) * 60 + part(6)?) * 60 + part(8)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        match u8::try_from(content.len()) {
            Ok(len @ ..0x80) => bytes.push(len),
            _ => bytes.extend([0x82, (content.len() >> 8) as u8, content.len() as u8]),
        }
        bytes.extend_from_slice(content);
        bytes
    }

    fn certificate(version: bool, from: Vec<u8>, until: Vec<u8>) -> Vec<u8> {
        let mut inner = if version { der(VERSION, &der(2, &[2])) } else { Vec::new() };
        inner.extend(der(2, &[7]));
        inner.extend(der(SEQUENCE, &[0; 200]));
        inner.extend(der(SEQUENCE, b"who"));
        inner.extend(der(SEQUENCE, &[from, until].concat()));
        inner.extend(der(SEQUENCE, b"the rest"));
        der(SEQUENCE, &der(SEQUENCE, &inner))
    }

    #[test]
    fn both_kinds_of_dates_are_read() {
        let utc = |text: &str| der(UTC_TIME, text.as_bytes());
        let long = |text: &str| der(GENERALIZED_TIME, text.as_bytes());
        let check = |certificate: &[u8], not_before, not_after| {
            assert_eq!(Validity::of(certificate), Some(Validity { not_before, not_after }));
        };
        check(&certificate(true, utc("700101000000Z"), utc("491231235959Z")), 0, 2_524_607_999);
        check(
            &certificate(false, utc("000229120000Z"), long("20500301000000Z")),
            951_825_600,
            2_529_705_600,
        );
        for bad in ["7001010000Z", "701301000000Z", "70010100000xZ", "700101000000", ""] {
            assert_eq!(
                Validity::of(&certificate(true, utc(bad), utc("491231235959Z"))),
                None,
                "{bad}"
            );
        }
    }

    #[test]
    fn what_is_cut_off_has_none() {
        let utc = |text: &str| der(UTC_TIME, text.as_bytes());
        let whole = certificate(true, utc("700101000000Z"), utc("491231235959Z"));
        for len in 0..whole.len() {
            assert_eq!(Validity::of(&whole[..len]), None, "{len}");
        }
        assert_eq!(Validity::of(&[SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff, 0]), None);
    }
}
