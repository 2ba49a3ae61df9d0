//! [`encode`] and [`decode`]: some events of a job in a few bytes each. Pure.
//!
//! Column by column, as JSON under zstd: columns of one kind compress to what they hold, and a unit's name costs once.
//! What a report does not need of a hit is left out: its keys, its phases (the sums of the job have them). A
//! chunk that cannot be read is as if it were not there.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use kiln_storage::api::{Cause, Event, Outcome};
use kiln_storage::record::UnitName;
use kiln_storage::{Digest, ResultKey, UnitKey};
use serde::{Deserialize, Serialize};

use crate::limits::{CHUNK_EVENTS, MAX_CHUNK_BYTES, MAX_KEPT_TEXT_BYTES};
use crate::tally::is_hit;

/// Version of what is written here; another one is not read.
const VERSION: u32 = 1;

/// Compression level of zstd.
const LEVEL: i32 = 6;

/// Hexadecimal digits of an id: with so many, two of the 20,000 events of a job are one in 10^6 jobs of that size.
const ID_DIGITS: usize = 12;

/// Hexadecimal digits that are kept of the key of a unit, and of a result.
const UNIT_DIGITS: usize = 32;
const RESULT_DIGITS: usize = 16;

/// What is kept of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// By which it is known again.
    pub(crate) id: u64,
    /// When the unit ended.
    pub(crate) at_ms: u64,
    /// The unit.
    pub(crate) unit: Arc<UnitName>,
    /// What became of it.
    pub(crate) outcome: Outcome,
    /// What the compile cost.
    pub(crate) cost_ms: u64,
    /// Of the whole run.
    pub(crate) wall_ms: u64,
    /// More, of what is no hit.
    pub(crate) more: Option<Box<More>>,
}

/// What is kept of a unit that was no hit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct More {
    /// The beginning of its key.
    #[serde(rename = "k", skip_serializing_if = "String::is_empty")]
    pub(crate) unit_key: String,
    /// The beginning of the key of its result; empty where nothing was stored.
    #[serde(rename = "r", skip_serializing_if = "String::is_empty")]
    pub(crate) result_key: String,
    /// Why.
    #[serde(rename = "w", skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    /// More about that.
    #[serde(rename = "d", skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    /// What differs from the nearest earlier result.
    #[serde(rename = "c", skip_serializing_if = "Vec::is_empty")]
    pub(crate) causes: Vec<Cause>,
    /// How many further causes there are.
    #[serde(rename = "m", skip_serializing_if = "is_zero")]
    pub(crate) more_causes: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// By which an event is known again.
pub(crate) fn id(event: &Event) -> u64 {
    let digest = Digest::of(event.id.as_bytes());
    digest.as_bytes()[..ID_DIGITS / 2].iter().fold(0, |id, byte| id << 8 | u64::from(*byte))
}

/// The beginning of a unit's key as it is kept.
pub(crate) fn brief_unit(key: &UnitKey) -> String {
    key.to_string()[..UNIT_DIGITS].to_owned()
}

/// The beginning of a result's key as it is kept.
pub(crate) fn brief_result(key: &ResultKey) -> String {
    key.to_string()[..RESULT_DIGITS].to_owned()
}

/// A text within a bound.
pub(crate) fn cut(text: &str, max_bytes: usize) -> String {
    let mut at = text.len().min(max_bytes);
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    text[..at].to_owned()
}

impl Kept {
    /// What is kept of an event.
    pub(crate) fn of(event: &Event, id: u64) -> Self {
        let short = |text: &String| cut(text, MAX_KEPT_TEXT_BYTES);
        let UnitName { crate_name, version, kind, target } = &event.unit;
        let more = (!is_hit(event.outcome)).then(|| {
            Box::new(More {
                unit_key: event.unit_key.as_ref().map(brief_unit).unwrap_or_default(),
                result_key: event.result_key.as_ref().map(brief_result).unwrap_or_default(),
                reason: event.reason.as_ref().map_or_else(|| "unspecified".into(), short),
                detail: event.detail.as_ref().map(short),
                causes: event.causes.iter().map(brief_cause).collect(),
                more_causes: event.more_causes,
            })
        });
        Self {
            id,
            at_ms: event.at_ms,
            unit: Arc::new(UnitName {
                crate_name: short(crate_name),
                version: short(version),
                kind: short(kind),
                target: short(target),
            }),
            outcome: event.outcome,
            cost_ms: event.cost_ms,
            wall_ms: event.wall_us / 1000,
            more,
        }
    }
}

fn brief_cause(cause: &Cause) -> Cause {
    let short = |text: &String| cut(text, MAX_KEPT_TEXT_BYTES);
    Cause {
        kind: short(&cause.kind),
        name: short(&cause.name),
        then: cause.then.as_ref().map(short),
        now: cause.now.as_ref().map(short),
    }
}

/// The columns.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Columns {
    version: u32,
    /// Crate, version, kind and target of each name, in the order of their first event.
    names: Vec<[String; 4]>,
    ids: String,
    /// The first time, then what each is after the one before it.
    first_ms: u64,
    at: Vec<i64>,
    /// 0: the next name; else the name with this number, from 1.
    unit: Vec<u32>,
    /// A letter each.
    outcome: String,
    cost: Vec<u64>,
    wall: Vec<u64>,
    /// Of those that are no hits, in their order.
    more: Vec<More>,
}

/// The letter of an outcome.
pub(crate) fn letter(outcome: Outcome) -> char {
    match outcome {
        Outcome::HitLocal => 'l',
        Outcome::HitRemote => 'r',
        Outcome::Joined => 'j',
        Outcome::Miss => 'm',
        Outcome::Bypass => 'b',
        Outcome::Error => 'e',
    }
}

/// The outcome of a letter.
pub(crate) fn outcome(letter: u8) -> Option<Outcome> {
    Some(match letter {
        b'l' => Outcome::HitLocal,
        b'r' => Outcome::HitRemote,
        b'j' => Outcome::Joined,
        b'm' => Outcome::Miss,
        b'b' => Outcome::Bypass,
        b'e' => Outcome::Error,
        _ => return None,
    })
}

/// Some events, at most [`CHUNK_EVENTS`].
pub(crate) fn encode(events: &[Kept]) -> std::io::Result<Vec<u8>> {
    let mut columns = Columns { version: VERSION, ..Columns::default() };
    let mut known: HashMap<&UnitName, u32> = HashMap::new();
    columns.first_ms = events.first().map_or(0, |event| event.at_ms);
    let mut before = columns.first_ms;
    for event in events {
        let number = match known.get(&*event.unit) {
            Some(number) => *number,
            None => {
                let UnitName { crate_name, version, kind, target } = &*event.unit;
                columns.names.push([crate_name, version, kind, target].map(Clone::clone));
                known.insert(&event.unit, columns.names.len() as u32);
                0
            }
        };
        columns.unit.push(number);
        // Writing to a text never fails.
        let _ = write!(columns.ids, "{:0ID_DIGITS$x}", event.id);
        columns.at.push(event.at_ms.wrapping_sub(before) as i64);
        before = event.at_ms;
        columns.outcome.push(letter(event.outcome));
        columns.cost.push(event.cost_ms);
        columns.wall.push(event.wall_ms);
        columns.more.extend(event.more.as_deref().cloned());
    }
    zstd::bulk::compress(&serde_json::to_vec(&columns)?, LEVEL)
}

/// The events of a chunk; none when it cannot be read.
pub(crate) fn decode(body: &[u8]) -> Option<Vec<Kept>> {
    let text = zstd::bulk::decompress(body, MAX_CHUNK_BYTES).ok()?;
    let columns: Columns = serde_json::from_slice(&text).ok()?;
    let count = columns.unit.len();
    let lengths = [columns.outcome.len(), columns.at.len(), columns.cost.len(), columns.wall.len()];
    let well = columns.version == VERSION
        && count <= CHUNK_EVENTS
        && lengths.iter().all(|length| *length == count)
        && columns.ids.len() == count * ID_DIGITS
        && columns.ids.is_ascii();
    if !well {
        return None;
    }
    let mut names = columns.names.into_iter().map(|[crate_name, version, kind, target]| {
        Arc::new(UnitName { crate_name, version, kind, target })
    });
    let mut known: Vec<Arc<UnitName>> = Vec::new();
    let mut more = columns.more.into_iter();
    let mut at_ms = columns.first_ms;
    let mut events = Vec::with_capacity(count);
    for n in 0..count {
        let unit = match columns.unit[n] {
            0 => {
                known.push(names.next()?);
                known.last()?.clone()
            }
            number => known.get(number as usize - 1)?.clone(),
        };
        let outcome = outcome(columns.outcome.as_bytes()[n])?;
        at_ms = at_ms.wrapping_add(columns.at[n] as u64);
        events.push(Kept {
            id: u64::from_str_radix(&columns.ids[n * ID_DIGITS..(n + 1) * ID_DIGITS], 16).ok()?,
            at_ms,
            unit,
            outcome,
            cost_ms: columns.cost[n],
            wall_ms: columns.wall[n],
            more: if is_hit(outcome) { None } else { Some(Box::new(more.next()?)) },
        });
    }
    Some(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::tests::event;

    const OUTCOMES: [Outcome; 6] = [
        Outcome::HitLocal,
        Outcome::HitRemote,
        Outcome::Joined,
        Outcome::Miss,
        Outcome::Bypass,
        Outcome::Error,
    ];

    fn kept(n: usize, outcome: Outcome) -> Kept {
        let mut event = event(&format!("{n}-1234-99"), "b", outcome);
        event.at_ms = 1_700_000_000_000 + (n as u64 * 37) % 1000;
        event.unit.crate_name = format!("crate{}", n % 40);
        event.unit_key = Some(UnitKey::new(Digest::of(&n.to_le_bytes())));
        event.causes = vec![Cause { kind: "file".into(), ..Cause::default() }];
        let id = id(&event);
        Kept::of(&event, id)
    }

    #[test]
    fn events_come_back_as_they_were_kept() {
        let events: Vec<Kept> = (0..CHUNK_EVENTS).map(|n| kept(n, OUTCOMES[n % 6])).collect();
        assert_eq!(decode(&encode(&events).unwrap()).as_ref(), Some(&events));
        assert_eq!(decode(&encode(&[]).unwrap()), Some(Vec::new()));
        let odd = Kept { at_ms: u64::MAX, cost_ms: u64::MAX, ..kept(1, Outcome::Miss) };
        let odd = [odd, Kept { at_ms: 0, ..kept(2, Outcome::Error) }];
        assert_eq!(decode(&encode(&odd).unwrap()).unwrap(), odd);
    }

    #[test]
    fn what_is_none_is_no_chunk() {
        let good = encode(&[kept(1, Outcome::Miss), kept(2, Outcome::HitLocal)]).unwrap();
        for end in 0..good.len() {
            assert_eq!(decode(&good[..end]), None);
        }
        let text = String::from_utf8(zstd::bulk::decompress(&good, MAX_CHUNK_BYTES).unwrap());
        let text = text.unwrap();
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("\"unit\":[0,0]", "\"unit\":[0,9]"),
            ("\"unit\":[0,0]", "\"unit\":[0,0,0]"),
            ("\"outcome\":\"ml\"", "\"outcome\":\"mm\""),
            ("\"outcome\":\"ml\"", "\"outcome\":\"\u{fc}\""),
            ("\"cost\":[100,100]", "\"cost\":[100]"),
        ] {
            assert!(text.contains(from), "{from} in {text}");
            let bad = zstd::bulk::compress(text.replace(from, to).as_bytes(), 1).unwrap();
            assert_eq!(decode(&bad), None, "{to}");
        }
    }

    #[test]
    fn texts_are_bounded() {
        let mut event = event("1", "b", Outcome::Miss);
        event.detail = Some("\u{e9}".repeat(5000));
        event.unit.crate_name = "x".repeat(5000);
        let kept = Kept::of(&event, 1);
        assert_eq!(kept.unit.crate_name.len(), MAX_KEPT_TEXT_BYTES);
        assert_eq!(kept.more.unwrap().detail.unwrap().len(), MAX_KEPT_TEXT_BYTES);
    }

    /// What a warm job of a large project costs.
    #[test]
    fn a_hit_costs_few_bytes() {
        let hits: Vec<Kept> = (0..CHUNK_EVENTS as u64)
            .map(|n| {
                let scattered = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let mut event = event(&n.to_string(), "b", Outcome::HitLocal);
                event.at_ms = 1_700_000_000_000 + n * 20 + scattered % 17;
                event.unit.crate_name = format!("crate-{:x}", scattered % 0xf_ffff);
                event.unit.version = format!("{}.{}.{}", n % 3, scattered % 30, scattered % 7);
                event.cost_ms = 50 + scattered % 3000;
                event.wall_us = 1000 * (1 + scattered % 9);
                let id = id(&event);
                Kept::of(&event, id)
            })
            .collect();
        let bytes = encode(&hits).unwrap().len();
        assert!(bytes < CHUNK_EVENTS * 25, "{} a hit", bytes as f64 / CHUNK_EVENTS as f64);
    }
}
