//! Large bodies compressed on their way between two Kiln servers, chunk by chunk: what is stored stays as it
//! is.
//!
//! The length of the bytes travels in a header of its own ([`LENGTH`]); nothing is believed to be longer.
//! Called by [`super::kiln`] and by the server's routes.

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _};
use zstd::stream::raw::{Decoder, Encoder, InBuffer, Operation, OutBuffer};

use crate::backend::{StoreError, StoreResult};
use crate::digest::Digest;
use crate::key::ObjectName;
use crate::limits::COPY_BUFFER_BYTES;

/// What `content-encoding` and `accept-encoding` say.
pub const ENCODING: &str = "zstd";

/// The header with the length of the bytes before they are compressed.
pub const LENGTH: &str = "x-kiln-length";

/// Smallest body that is worth it, bytes.
pub const MIN_BYTES: u64 = 4096;

/// It has to keep up with a network.
const LEVEL: i32 = 1;

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("a compressed body: {error}"))
}

/// Runs an operation over some bytes; what it puts out.
fn run(operation: &mut impl Operation, bytes: &[u8]) -> StoreResult<Vec<u8>> {
    let mut all = Vec::new();
    let mut input = InBuffer::around(bytes);
    loop {
        let mut chunk = Vec::with_capacity(COPY_BUFFER_BYTES);
        let mut output = OutBuffer::around(&mut chunk);
        operation.run(&mut input, &mut output).map_err(failed)?;
        let is_full = output.pos() == COPY_BUFFER_BYTES;
        all.extend_from_slice(&chunk);
        if input.pos() == bytes.len() && !is_full {
            return Ok(all);
        }
    }
}

/// A body, compressed.
///
/// # Errors
/// No compressor is to be had.
pub fn compress(
    body: impl Stream<Item = StoreResult<Bytes>> + Send + 'static,
) -> StoreResult<BoxStream<'static, StoreResult<Bytes>>> {
    let encoder = Encoder::new(LEVEL).map_err(failed)?;
    let state = Some((body.boxed(), encoder));
    let compressed = stream::try_unfold(state, async |state| {
        let Some((mut body, mut encoder)) = state else { return Ok(None) };
        match body.next().await.transpose()? {
            Some(chunk) => {
                let bytes = run(&mut encoder, &chunk)?;
                Ok(Some((Bytes::from(bytes), Some((body, encoder)))))
            }
            None => {
                let mut all = Vec::new();
                loop {
                    let mut chunk = Vec::with_capacity(COPY_BUFFER_BYTES);
                    let mut output = OutBuffer::around(&mut chunk);
                    let left = encoder.finish(&mut output, true).map_err(failed)?;
                    all.extend_from_slice(&chunk);
                    if left == 0 {
                        return Ok(Some((Bytes::from(all), None)));
                    }
                }
            }
        }
    });
    let is_some = |chunk: &StoreResult<Bytes>| !chunk.as_ref().is_ok_and(Bytes::is_empty);
    Ok(compressed.filter(move |chunk| std::future::ready(is_some(chunk))).boxed())
}

/// The compressed body of a blob as it was, as long as it says. One that is no such body, or ends in order and is
/// shorter or longer, is damaged.
///
/// # Errors
/// No decompressor is to be had.
pub fn expand(
    body: impl Stream<Item = StoreResult<Bytes>> + Send + 'static,
    (digest, len): (Digest, u64),
) -> StoreResult<BoxStream<'static, StoreResult<Bytes>>> {
    let decoder = Decoder::new().map_err(failed)?;
    let name = ObjectName::blob(&digest);
    let damaged = move |why: &dyn std::fmt::Display| StoreError::Damaged {
        name: name.clone(),
        why: format!("its compressed body: {why}"),
    };
    let state = (body.boxed(), (decoder, damaged, false), Bytes::new(), len);
    let expanded = stream::try_unfold(state, async |(mut body, decoder, mut chunk, left)| {
        // Whether there may be more in it than came out of it last.
        let (mut decoder, damaged, mut is_full) = decoder;
        loop {
            if chunk.is_empty() && !is_full {
                chunk = match body.next().await.transpose()? {
                    Some(chunk) => chunk,
                    None if left == 0 => return Ok(None),
                    None => return Err(damaged(&"it is shorter than it says")),
                };
            }
            // One buffer at a time: a few bytes may stand for very many.
            let mut bytes = Vec::with_capacity(COPY_BUFFER_BYTES);
            let mut input = InBuffer::around(&chunk);
            let mut output = OutBuffer::around(&mut bytes);
            decoder.run(&mut input, &mut output).map_err(|error| damaged(&error))?;
            let read = input.pos();
            let made = bytes.len() as u64;
            if made > left {
                return Err(damaged(&"it is longer than it says"));
            }
            is_full = bytes.len() == COPY_BUFFER_BYTES;
            let _ = chunk.split_to(read);
            if made > 0 {
                let state = (body, (decoder, damaged, is_full), chunk, left - made);
                return Ok(Some((Bytes::from(bytes), state)));
            }
        }
    });
    Ok(expanded.boxed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(chunks: Vec<Bytes>) -> BoxStream<'static, StoreResult<Bytes>> {
        stream::iter(chunks.into_iter().map(Ok)).boxed()
    }

    fn blob(len: u64) -> (Digest, u64) {
        (Digest::of(b"a blob"), len)
    }

    async fn all(mut body: BoxStream<'static, StoreResult<Bytes>>) -> StoreResult<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(chunk) = body.next().await {
            all.extend_from_slice(&chunk?);
        }
        Ok(all)
    }

    /// Bytes of which some repeat and some do not.
    fn bytes(len: usize) -> Vec<u8> {
        let mut seed = 1_u64;
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed.to_le_bytes()[0]
        };
        (0..len).map(|i| if i % 3 == 0 { next() } else { b'x' }).collect()
    }

    #[tokio::test]
    async fn what_is_compressed_comes_out_as_it_was() {
        for len in [0, 1, 5000, 3_000_000] {
            let plain = bytes(len);
            let chunks = plain.chunks(70_000).map(Bytes::copy_from_slice).collect();
            let small = all(compress(body(chunks)).unwrap()).await.unwrap();
            assert!(len < 5000 || small.len() < len * 2 / 3, "{len}: {}", small.len());
            for chunk in [1000, 1 << 22] {
                let chunks = small.chunks(chunk).map(Bytes::copy_from_slice).collect();
                let found = all(expand(body(chunks), blob(len as u64)).unwrap()).await.unwrap();
                assert_eq!(found, plain);
            }
        }
    }

    #[tokio::test]
    async fn what_is_longer_or_shorter_or_no_such_body_is_refused() {
        let plain = vec![b'x'; 10_000_000];
        let small = all(compress(body(vec![plain.into()])).unwrap()).await.unwrap();
        assert!(small.len() < 10_000);
        let expand_as = async |bytes: &[u8], len| {
            all(expand(body(vec![Bytes::copy_from_slice(bytes)]), blob(len)).unwrap()).await
        };
        assert!(expand_as(&small, 10_000_000).await.is_ok());
        for (bytes, len) in [
            (&small[..], 9_999_999),
            (&small, 10_000_001),
            (&small[..small.len() / 2], 10_000_000),
            (b"no such body", 10),
        ] {
            let refused = expand_as(bytes, len).await;
            assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
        }
    }
}
