//! A service that makes tokens as GitHub does, on loopback. Its keys are in `issuer.keys` beside this file: made for
//! these tests, known to everybody, trusted by nobody.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_storage::remote::gha::token::decode;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair, PublicKeyComponents};
use ring::signature::RSA_PKCS1_SHA256;
use serde_json::{Value, json};

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Bytes as base64url without padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let all = [chunk[0], *chunk.get(1).unwrap_or(&0), *chunk.get(2).unwrap_or(&0)];
        let word = u32::from_be_bytes([0, all[0], all[1], all[2]]);
        for i in 0..=chunk.len() {
            let index = word >> (18 - 6 * i) & 63;
            text.push(char::from(LETTERS[index as usize]));
        }
    }
    text
}

/// One of the keys for tests.
pub(crate) struct TestKey(KeyPair);

impl TestKey {
    /// The first, which issuers here have, or the second, which none has.
    pub(crate) fn nth(n: usize) -> Self {
        let line = include_str!("issuer.keys").lines().nth(n).unwrap();
        Self(KeyPair::from_der(&decode(line).unwrap()).unwrap())
    }

    /// A signed token.
    pub(crate) fn sign(&self, head: &Value, claims: &Value) -> String {
        let signed = signed_part(head, claims);
        let mut signature = vec![0; self.0.public().modulus_len()];
        let chance = SystemRandom::new();
        self.0.sign(&RSA_PKCS1_SHA256, &chance, signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", encode(&signature))
    }

    /// The public half: modulus and exponent.
    pub(crate) fn public(&self) -> (Vec<u8>, Vec<u8>) {
        let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(self.0.public());
        (n, e)
    }

    /// The key set with this key alone.
    pub(crate) fn key_set(&self, kid: &str) -> Value {
        let (n, e) = self.public();
        let key = json!({"kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid,
            "n": encode(&n), "e": encode(&e)});
        json!({"keys": [key]})
    }
}

/// What of a token is signed.
pub(crate) fn signed_part(head: &Value, claims: &Value) -> String {
    format!("{}.{}", encode(head.to_string().as_bytes()), encode(claims.to_string().as_bytes()))
}

/// The head of a token of this issuer.
pub(crate) fn head() -> Value {
    json!({"typ": "JWT", "alg": "RS256", "kid": "test-1"})
}

/// Seconds since 1970.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The claims of a push to the main branch of repository 1234, with these in place of some.
pub(crate) fn claims(iss: &str, aud: &str, with: Value) -> Value {
    let now = now_s();
    let unique = format!("jti-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut claims = json!({
        "iss": iss, "aud": aud, "jti": unique, "iat": now, "nbf": now, "exp": now + 300,
        "sub": "repo:somebody/else:ref:refs/heads/main",
        "repository_id": "1234", "repository": "o/r", "event_name": "push",
        "ref": "refs/heads/main", "ref_type": "branch", "base_ref": "", "head_ref": "",
        "workflow_ref": "o/r/.github/workflows/ci.yml@refs/heads/main",
        "job_workflow_ref": "o/r/.github/workflows/ci.yml@refs/heads/main",
        "runner_environment": "github-hosted", "run_id": "77", "run_attempt": "1",
        "sha": "0123456789abcdef0123456789abcdef01234567",
    });
    for (name, value) in with.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

static NEXT: AtomicUsize = AtomicUsize::new(0);

/// The claims of pull request `number` against a branch.
pub(crate) fn of_pull_request(number: u32, base: &str) -> Value {
    json!({"event_name": "pull_request", "ref": format!("refs/pull/{number}/merge"), "base_ref": base})
}

/// An issuer that answers for its keys, until the test ends.
pub(crate) struct Issuer {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
    /// What the tokens that a job asks for say beside that of a push to main.
    signs: Arc<Mutex<Value>>,
}

impl Issuer {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let signs = Arc::new(Mutex::new(json!({})));
        let signed = signs.clone();
        std::thread::spawn(move || {
            let keys = TestKey::nth(0).key_set("test-1").to_string();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let (mut head, mut chunk) = (Vec::new(), [0_u8; 4096]);
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut chunk) {
                        Ok(0) | Err(_) => break,
                        Ok(read) => head.extend_from_slice(&chunk[..read]),
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let body = match head.split_once("audience=") {
                    Some((_, rest)) => {
                        assert!(head.contains("authorization: Bearer the job's\r\n"), "{head}");
                        let aud = rest.split(' ').next().unwrap();
                        let aud = aud.replace("%3A", ":").replace("%2F", "/");
                        let with = signed.lock().unwrap().clone();
                        let claims = claims(&format!("http://{address}"), &aud, with);
                        let token = TestKey::nth(0).sign(&self::head(), &claims);
                        json!({"value": token, "count": 1}).to_string()
                    }
                    None => {
                        counted.fetch_add(1, Ordering::Relaxed);
                        keys.clone()
                    }
                };
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { address, asked, signs }
    }

    /// What jobs that ask for a token are from now on.
    pub(crate) fn signs(&self, with: Value) {
        *self.signs.lock().unwrap() = with;
    }

    /// The claim `iss` of its tokens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How often it was asked for its keys.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// A token of it.
    pub(crate) fn token(&self, aud: &str, with: Value) -> String {
        TestKey::nth(0).sign(&head(), &claims(&self.url(), aud, with))
    }
}
