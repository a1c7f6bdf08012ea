//! A scripted node whose connections can be broken.

use std::sync::Arc;

use crate::scripted::Script;

/// A scripted node that can be killed: its connections break.
pub struct Killable {
    pub script: Arc<Script>,
    pub url: String,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Killable {
    pub async fn start() -> Self {
        let script = Script::new();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let served = Arc::clone(&script);
        let url = runtime.spawn(async move { served.serve().await }).await.expect("it serves");
        Self { script, url, runtime: Some(runtime) }
    }

    pub fn kill(&mut self) {
        self.runtime.take().expect("it lives").shutdown_background();
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
