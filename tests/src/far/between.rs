//! [`Between`]: a proxy before a shared server that is a process of its own; it changes what is said.

use kiln_storage::testing::proxy::FaultProxy;
use tokio::runtime::Runtime;

use super::bucket::runtime;
use super::standing::Standing;

/// A proxy before a shared server.
#[derive(Debug)]
pub struct Between {
    proxy: FaultProxy,
    // Last: the proxy runs in it.
    _runtime: Runtime,
}

impl Between {
    /// One that hands everything on so far.
    pub fn before(server: &Standing) -> Self {
        let runtime = runtime();
        let proxy = runtime.block_on(FaultProxy::start(server.address())).expect("a proxy");
        Self { proxy, _runtime: runtime }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.proxy.address())
    }

    /// The proxy.
    pub fn proxy(&self) -> &FaultProxy {
        &self.proxy
    }
}
