//! A server that asks for tokens, and those who come to it with one.

use kiln_server::ServeConfig;
use kiln_storage::Digest;
use kiln_storage::api::{LookupRequest, LookupResponse, PublishRequest, SessionResponse};
use serde::Serialize;
use serde_json::{Value, json};

use crate::harness::{Fixture, Reply, TestServer};
use crate::issuer::Issuer;

/// Whom the tokens of jobs are made for.
pub(crate) const AUDIENCE: &str = "https://kiln.example";

/// A server that asks for tokens, with rules for repository 1234, and an issuer of tokens for its jobs.
pub(crate) struct Guarded {
    pub(crate) server: TestServer,
    pub(crate) issuer: Issuer,
    audience: String,
}

/// Requests with a token, or without.
pub(crate) struct As<'a>(pub(crate) &'a TestServer, pub(crate) Option<String>);

impl As<'_> {
    pub(crate) fn ask(&self, method: &str, path: &str, body: &[u8]) -> Reply {
        let header = self.1.as_ref().map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = header.iter().map(|text| ("authorization", text.as_str())).collect();
        self.0.tcp(method, path, &headers, body)
    }

    pub(crate) fn json(&self, method: &str, path: &str, body: &impl Serialize) -> Reply {
        self.ask(method, path, &serde_json::to_vec(body).unwrap())
    }

    /// Uploads the one blob of a record and publishes it; the status.
    pub(crate) fn publish(&self, one: &Fixture, bytes: &[u8]) -> u16 {
        let uploaded = self.ask("PUT", &format!("/v1/blobs/{}", Digest::of(bytes)), bytes).status;
        if !matches!(uploaded, 200 | 201) {
            return uploaded;
        }
        let request = PublishRequest { offers: Vec::new(), ..one.request() };
        self.json("PUT", &one.path(), &request).status
    }

    /// What there is of a unit: by its records' standard output.
    pub(crate) fn finds(&self, one: &Fixture) -> Vec<String> {
        let request =
            LookupRequest { units: vec![one.record.unit_key], ..LookupRequest::default() };
        let reply = self.json("POST", "/v1/lookup", &request);
        assert_eq!(reply.status, 200);
        let found: LookupResponse = reply.json();
        found.records.into_iter().map(|record| record.stdout).collect()
    }

    pub(crate) fn reads(&self, bytes: &[u8]) -> bool {
        self.ask("GET", &format!("/v1/blobs/{}", Digest::of(bytes)), b"").status == 200
    }
}

impl Guarded {
    pub(crate) fn start(more: &str) -> Self {
        Self::start_with(more, |_| {})
    }

    pub(crate) fn start_with(more: &str, change: impl FnOnce(&mut ServeConfig)) -> Self {
        Self::start_for(AUDIENCE, more, change)
    }

    /// One that tokens have to be made for by this name.
    pub(crate) fn start_for(
        audience: &str,
        more: &str,
        change: impl FnOnce(&mut ServeConfig),
    ) -> Self {
        let (dir, issuer) = (tempfile::tempdir().unwrap(), Issuer::start());
        let rules = format!(
            r#"{{"audience": "{audience}", "issuers": [{{"url": "{0}"}}], "repositories": [
                {{"id": "1234", "issuer": "{0}", "default_branch": "main"{more}}},
                {{"id": "99", "issuer": "{0}", "default_branch": "main"}}]}}"#,
            issuer.url()
        );
        let path = dir.path().join("trust.json");
        std::fs::write(&path, rules).unwrap();
        let server = TestServer::start_with(dir, |config| {
            config.trust = Some(path);
            change(config);
        });
        Self { server, issuer, audience: audience.to_owned() }
    }

    /// The same server, started anew at the same address.
    pub(crate) fn restarted(self) -> Self {
        let Self { server, issuer, audience } = self;
        let address = server.tcp;
        let dir = server.stop();
        let rules = dir.path().join("trust.json");
        let server = TestServer::start_with(dir, |config| {
            config.trust = Some(rules);
            config.listen.tcp = Some(address);
        });
        Self { server, issuer, audience }
    }

    pub(crate) fn exchange(&self, token: &str) -> Reply {
        As(&self.server, None).json("POST", "/v1/session", &json!({"token": token}))
    }

    /// A job, by what its token says besides that of a push to main.
    pub(crate) fn job(&self, with: Value) -> As<'_> {
        let reply = self.exchange(&self.issuer.token(&self.audience, with));
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
        As(&self.server, Some(reply.json::<SessionResponse>().token))
    }

    /// How many questions for leases wait.
    pub(crate) fn waiting(&self) -> u64 {
        let waiting = crate::metrics::value(&self.server, "kiln_lease_waiters");
        waiting.unwrap() as u64
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.server.kiln_dir().join("server.log")).unwrap()
    }

    /// A result of the unit `u` for an input, told by its standard output.
    pub(crate) fn result(&self, input: &str, says: &str, bytes: &[u8]) -> Fixture {
        let mut one = Fixture::new(self.server.dir.path(), "u", input, &[bytes]);
        one.record.stdout = says.to_owned();
        one
    }
}
