//! stub
pub(crate) struct Readers;
impl Readers {
    pub(crate) fn new() -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self)
    }
    pub(crate) fn hold(&self, _: std::time::Duration) -> u8 {
        0
    }
}
