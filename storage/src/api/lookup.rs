//! `POST /v1/lookup`: the question of every compiler run, and its answer. Wrappers and servers ask it of servers.

use serde::{Deserialize, Serialize};

use crate::key::{ResultKey, UnitKey};
use crate::record::{RECORD_VERSION, Record};

/// `POST /v1/lookup`: at most [`crate::limits::MAX_LOOKUP_KEYS`] keys in all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LookupRequest {
    /// Units whose newest records are wanted.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub units: Vec<UnitKey>,
    /// Results that are wanted exactly.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub results: Vec<ResultKey>,
    /// Results that were answered before and do not hold: they are left out, and a place behind the server
    /// is asked for others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub known: Vec<ResultKey>,
    /// The job that asks, as `repository/workflow/job` of its events where these are known
    /// (`Event::lasting_job`): what it used last time may be fetched ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
}

/// The answer to a [`LookupRequest`]. A key without an answer is missing from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LookupResponse {
    /// Records of the units, newest first within each unit.
    pub records: Vec<Record>,
    /// On a unix socket: the directory of the server's disk store, in which
    /// [`crate::disk::blob_path`] finds each blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_store: Option<String>,
    /// Results whose blobs are not all on the server yet: `POST /v1/results/{key}/bring` first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub absent: Vec<ResultKey>,
    /// Results that came to the server from a place behind it and were not used since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub arrived: Vec<ResultKey>,
    /// There is a place behind the server that was not asked: to ask it, look up again with
    /// [`LookupRequest::known`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub farther: bool,
    /// Results that were answered with a record of another version: see [`LookupResponse::read`].
    #[serde(skip)]
    pub foreign: Vec<ResultKey>,
}

impl LookupResponse {
    /// Reads an answer. A record of another version, newer or older, with members nobody knows here perhaps, is no
    /// fault of who answers: it is left out, and named in `foreign`.
    ///
    /// # Errors
    /// It is no such answer.
    pub fn read(json: &[u8]) -> serde_json::Result<Self> {
        let mut answer = serde_json::from_slice(json).or_else(|_| Self::read_one_by_one(json))?;
        let Self { records, foreign, .. } = &mut answer;
        records.retain(|record| {
            let is_known = record.version == RECORD_VERSION;
            foreign.extend((!is_known).then_some(record.result_key));
            is_known
        });
        Ok(answer)
    }

    fn read_one_by_one(json: &[u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Foreign {
            result_key: ResultKey,
        }
        let mut answer: serde_json::Value = serde_json::from_slice(json)?;
        let records = answer.get_mut("records").map(serde_json::Value::take);
        if let Some(records) = answer.get_mut("records") {
            *records = serde_json::Value::Array(Vec::new());
        }
        let mut answer: Self = serde_json::from_value(answer)?;
        let records: Vec<serde_json::Value> = serde_json::from_value(records.unwrap_or_default())?;
        for record in records {
            match Record::deserialize(&record) {
                Ok(record) => answer.records.push(record),
                Err(_) => answer.foreign.push(Foreign::deserialize(&record)?.result_key),
            }
        }
        Ok(answer)
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::results::result;

    /// An answer with three records, the middle one changed.
    fn answer(change: impl Fn(&mut Value)) -> serde_json::Result<LookupResponse> {
        let record = |value: &str| json!(result("unit", value, &[]).1);
        let mut middle = record("2");
        change(&mut middle);
        let records = [record("1"), middle, record("3")];
        LookupResponse::read(json!({"records": records, "farther": true}).to_string().as_bytes())
    }

    #[test]
    fn records_of_another_version_are_left_out_and_named() {
        let key = |value: &str| result("unit", value, &[]).0.result;
        let keys = |answer: &LookupResponse| -> Vec<ResultKey> {
            answer.records.iter().map(|record| record.result_key).collect()
        };
        let same = answer(|_| {}).unwrap();
        assert_eq!(keys(&same), [key("1"), key("2"), key("3")]);
        assert!(same.foreign.is_empty());
        for change in [
            |record: &mut Value| record["version"] = json!(RECORD_VERSION + 1),
            |record: &mut Value| record["version"] = json!("a word"),
            |record: &mut Value| record["members"][0] = json!({"newer": ["<workspace>/a", 1]}),
            |record: &mut Value| record["outputs"] = json!({}),
        ] {
            let answer = answer(change).unwrap();
            assert_eq!((keys(&answer), answer.foreign), (vec![key("1"), key("3")], vec![key("2")]));
            assert!(answer.farther);
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        assert!(answer(|record| record["result_key"] = json!("x")).is_err());
        assert!(answer(|record| *record = json!([])).is_err());
        for text in ["", "[]", "{}", "{\"records\":{}}", "{\"records\":[],\"farther\":1}"] {
            assert!(LookupResponse::read(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(LookupResponse::read(b"{\"records\":[]}").unwrap(), LookupResponse::default());
    }
}
