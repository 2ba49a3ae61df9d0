//! [`Matrix`]: the values that tell a job from others of its name, as `KILN_MATRIX` has them. Pure. Used by
//! [`super::Config`].

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::limits::MAX_MATRIX_BYTES;

/// Values in the order in which they were written, those of nested ones in their place. Empty ones are left out,
/// as GitHub does it in the names that it shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matrix(Vec<String>);

impl Matrix {
    /// Whether there is no value: the job is the only one of its name.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl std::str::FromStr for Matrix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_MATRIX_BYTES {
            return Err("too long");
        }
        // What GitHub makes of the matrix of a job that has none.
        if !text.trim_start().starts_with('{') && text.trim() != "null" {
            return Err("not an object");
        }
        let values: Values = serde_json::from_str(text).map_err(|_| "not JSON")?;
        Ok(Self(values.0.into_iter().filter(|value| !value.is_empty()).collect()))
    }
}

/// The scalars in a value.
struct Values(Vec<String>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Collect)
    }
}

struct Collect;

/// A value that is one scalar.
fn one<E>(value: impl ToString) -> Result<Values, E> {
    Ok(Values(vec![value.to_string()]))
}

impl<'de> Visitor<'de> for Collect {
    type Value = Values;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_unit<E>(self) -> Result<Values, E> {
        Ok(Values(Vec::new()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Values, E> {
        one(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Values, E> {
        one(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Values, E> {
        one(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Values, E> {
        one(value)
    }

    fn visit_str<E>(self, value: &str) -> Result<Values, E> {
        one(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Values, A::Error> {
        let mut all = Vec::new();
        while let Some(Values(values)) = list.next_element()? {
            all.extend(values);
        }
        Ok(Values(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Values, A::Error> {
        let mut all = Vec::new();
        while let Some((_, Values(values))) = object.next_entry::<IgnoredAny, Values>()? {
            all.extend(values);
        }
        Ok(Values(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, &'static str> {
        text.parse().map(|matrix: Matrix| matrix.to_string())
    }

    #[test]
    fn values_come_in_the_order_they_were_written() {
        for (text, expected) in [
            (r#"{"os":"linux","rust":"stable"}"#, "linux, stable"),
            (r#"{"rust":"stable","os":"linux"}"#, "stable, linux"),
            ("{\n  \"rust\": 1.85,\n  \"release\": true,\n  \"part\": 3\n}\n", "1.85, true, 3"),
            (r#"{"t":{"os":"linux","cc":["gcc","ld"]},"last":-1}"#, "linux, gcc, ld, -1"),
            (r#"{"features":"","none":null,"rust":"beta"}"#, "beta"),
            ("{}", ""),
            ("null", ""),
        ] {
            assert_eq!(shown(text), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["linux", "[]", "\"linux\"", "1", "{", "{}x", "{'os':1}", "nul", " "] {
            assert!(shown(text).is_err(), "{text}");
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(1000), "]".repeat(1000));
        assert_eq!(shown(&deep), Err("not JSON"));
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_MATRIX_BYTES));
        assert_eq!(shown(&long), Err("too long"));
    }
}
