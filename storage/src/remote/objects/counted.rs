//! [`Counted`]: counts the calls of a backend that does not count requests itself. Called by [`super`].

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::backend::{Backend, Body, Listed, Put, StoreResult};
use crate::key::ObjectName;
use crate::object::Traffic;

/// One call is one request.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) inner: Arc<dyn Backend>,
    pub(super) traffic: Arc<Traffic>,
}

#[async_trait]
impl Backend for Counted {
    async fn get(&self, name: &ObjectName) -> StoreResult<Option<Body>> {
        self.traffic.sent(0);
        let body = self.inner.get(name).await?;
        self.traffic.received(body.as_ref().map_or(0, Body::len));
        Ok(body)
    }

    async fn put_if_absent(&self, name: &ObjectName, body: Body) -> StoreResult<Put> {
        self.traffic.sent(body.len());
        self.inner.put_if_absent(name, body).await
    }

    async fn size(&self, name: &ObjectName) -> StoreResult<Option<u64>> {
        self.traffic.sent(0);
        self.inner.size(name).await
    }

    async fn delete(&self, name: &ObjectName) -> StoreResult<bool> {
        self.traffic.sent(0);
        self.inner.delete(name).await
    }

    async fn delete_all(&self, names: &[ObjectName]) -> StoreResult<()> {
        self.traffic.sent(0);
        self.inner.delete_all(names).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'static, StoreResult<Listed>> {
        self.traffic.sent(0);
        self.inner.list(prefix)
    }
}
