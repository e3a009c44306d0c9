//! Errors of the GPU, with advice for the user.

/// Errors of room `gpu`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// No adapter at all.
    #[error(
        "no GPU adapter was found; install a Vulkan, Metal or DirectX 12 driver (on Linux without a GPU: Mesa's lavapipe)"
    )]
    NoAdapter,
    /// The variable `WGPU_BACKEND` leaves nothing to look at.
    #[error("WGPU_BACKEND is \"{0}\", which names none of vulkan, metal and dx12")]
    NoBackend(String),
    /// No adapter has the wanted name or number.
    #[error("no GPU adapter matches \"{wanted}\"; found: {found}")]
    OtherAdapters {
        /// The name or number that was asked for.
        wanted: String,
        /// The adapters that exist.
        found: String,
    },
    /// Several adapters match, and they are different GPUs.
    #[error("\"{wanted}\" matches several GPU adapters; name one by its number: {found}")]
    SeveralAdapters {
        /// The name that was asked for.
        wanted: String,
        /// The adapters that exist.
        found: String,
    },
    /// Every variant of a kernel computes nonsense.
    #[error(
        "the GPU or its driver computes {0} wrongly in every way that this program knows; try another GPU or driver (`ditscope doctor` shows more)"
    )]
    NoVariant(String),
    /// Each adapter refused, or failed its test.
    #[error("no GPU adapter works: {0}")]
    NoneWorks(String),
    /// The adapter refused to open a device.
    #[error("the adapter \"{adapter}\" could not be opened; try another one (`ditscope devices` lists them)")]
    RequestDevice {
        /// Adapter name.
        adapter: String,
        /// The driver's reason.
        #[source]
        source: wgpu::RequestDeviceError,
    },
    /// The device ran out of memory.
    #[error("the GPU is out of memory while allocating {bytes} bytes for {what}; try a smaller size or fewer frames")]
    OutOfMemory {
        /// The purpose of the memory.
        what: String,
        /// Bytes that were asked for.
        bytes: u64,
    },
    /// One buffer would exceed what the adapter allows.
    #[error("{what} needs one buffer of {bytes} bytes, the adapter allows {limit}; try a smaller size or fewer frames")]
    BufferTooLarge {
        /// The purpose of the memory.
        what: String,
        /// Bytes that were asked for.
        bytes: u64,
        /// The adapter's limit in bytes.
        limit: u64,
    },
    /// One binding would exceed what the adapter allows, and the work cannot be split further.
    #[error(
        "kernel {kernel}: a binding of {bytes} bytes exceeds the adapter's {limit}; try a smaller size or fewer frames"
    )]
    BindingTooLarge {
        /// The kernel.
        kernel: String,
        /// The binding's size in bytes.
        bytes: u64,
        /// The adapter's limit in bytes.
        limit: u64,
    },
    /// The device is gone (driver reset, sleep, unplugged, watchdog).
    #[error(
        "the GPU device was lost: {0}; start again, and if it is lost again update the driver or try a smaller size"
    )]
    Lost(String),
    /// The driver reported work as done that it had dropped: so many submits.
    #[error(
        "the GPU driver dropped work without a word ({0} submits); start again, and if it happens again update the driver or try a smaller size"
    )]
    NotDone(usize),
    /// wgpu reported another error: a bug in this program or in the driver.
    #[error("the GPU driver reported an error: {0}")]
    Device(String),
    /// A shader could not be composed or compiled.
    #[error(transparent)]
    Shader(#[from] super::shader::ShaderError),
    /// The operation was given tensors that do not fit it.
    #[error("{op}: {message}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The reason.
        message: String,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl GpuError {
    /// A [`GpuError::Shape`].
    pub fn shape(op: &'static str, message: impl Into<String>) -> Self {
        Self::Shape { op, message: message.into() }
    }
}
