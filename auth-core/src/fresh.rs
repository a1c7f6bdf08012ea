/// Where random bytes come from: the caller, who asks the operating system; tests give a seeded source.
///
/// # Contract
///
/// Bytes are unpredictable to everybody else and never come twice, also not in another process or after a restart.
pub trait FreshBytes: Send + Sync {
    /// Overwrites all bytes.
    fn fill(&self, bytes: &mut [u8]);
}

impl dyn FreshBytes + '_ {
    /// So many bytes.
    pub fn array<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}
