//! GPU memory: buffers by size class, reused as soon as no tensor holds them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::adapter::MOST_BYTES;
use super::device::poll;
use super::{GpuError, Result};

/// How much GPU memory the program holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct MemoryUse {
    /// Held by live tensors, weights included.
    pub used: u64,
    /// Free, kept for reuse.
    pub pooled: u64,
    /// The highest `used + pooled` since the device was opened, or since
    /// [`Gpu::reset_peak_memory`](super::Gpu::reset_peak_memory).
    pub peak: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Free buffers by size.
    free: BTreeMap<u64, Vec<wgpu::Buffer>>,
    usage: MemoryUse,
    /// Number of buffers until all memory is refused. See [`Pool::refuse_after`].
    granted: Option<u64>,
}

/// The pool of one device.
#[derive(Debug, Default)]
pub(super) struct Pool {
    state: Mutex<State>,
}

/// One buffer taken from the pool. Dropping it returns the buffer.
#[derive(Debug)]
pub(super) struct Allocation {
    buffer: Option<wgpu::Buffer>,
    pool: Weak<Pool>,
}

impl Allocation {
    pub(super) fn buffer(&self) -> &wgpu::Buffer {
        self.buffer.as_ref().expect("the buffer is taken only in drop")
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if let (Some(buffer), Some(pool)) = (self.buffer.take(), self.pool.upgrade()) {
            let mut state = pool.lock();
            state.usage.used -= buffer.size();
            state.usage.pooled += buffer.size();
            state.free.entry(buffer.size()).or_default().push(buffer);
        }
    }
}

/// Rounds a size up so that tensors of nearly equal size share buffers. The result is a multiple of
/// an eighth of the largest power of two below it, so that at most an eighth is wasted, and of 256
/// bytes.
fn size_class(bytes: u64) -> u64 {
    let step = (bytes.max(1).next_power_of_two() / 16).max(256);
    bytes.max(1).next_multiple_of(step)
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves these counters usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses all memory after so many more buffers.
    pub(super) fn refuse_after(&self, buffers: u64) {
        self.lock().granted = Some(buffers);
    }

    /// Whether the next buffer is refused. See [`Pool::refuse_after`].
    fn refuses(&self) -> bool {
        match &mut self.lock().granted {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    /// A buffer of at least `bytes`, with undefined contents.
    pub(super) fn allocate(self: &Arc<Self>, device: &wgpu::Device, bytes: u64, what: &str) -> Result<Allocation> {
        let limit = device.limits().max_buffer_size.min(MOST_BYTES);
        // The class of the largest possible tensors would exceed the limit.
        let size = if bytes <= limit { size_class(bytes).min(limit & !3) } else { bytes };
        let reused = self.lock().free.get_mut(&size).and_then(Vec::pop);
        match reused {
            Some(buffer) => {
                self.lock().usage.pooled -= buffer.size();
                Ok(self.hand_out(buffer))
            }
            None => self.allocate_fresh(device, size, what),
        }
    }

    /// A buffer of at least `bytes` that was never used before. The queue's own writes need one:
    /// they overtake recorded commands, which may still use a returned buffer. Size classes are not
    /// applied, because weights are kept and would only waste the rounding.
    pub(super) fn allocate_fresh(
        self: &Arc<Self>,
        device: &wgpu::Device,
        bytes: u64,
        what: &str,
    ) -> Result<Allocation> {
        let limit = device.limits().max_buffer_size.min(MOST_BYTES);
        if self.refuses() {
            return Err(GpuError::OutOfMemory { what: what.into(), bytes });
        }
        if bytes > limit {
            return Err(GpuError::BufferTooLarge { what: what.into(), bytes, limit });
        }
        let size = bytes.next_multiple_of(256).min(limit & !3);
        let buffer = match create_buffer(device, size, what) {
            Ok(buffer) => buffer,
            // Free buffers of other sizes may take the memory. Work in flight holds them until it
            // is done.
            Err(_) => {
                self.release_free();
                poll(device, wgpu::PollType::wait_indefinitely())?;
                create_buffer(device, size, what)?
            }
        };
        Ok(self.hand_out(buffer))
    }

    fn hand_out(self: &Arc<Self>, buffer: wgpu::Buffer) -> Allocation {
        let mut state = self.lock();
        state.usage.used += buffer.size();
        state.usage.peak = state.usage.peak.max(state.usage.used + state.usage.pooled);
        Allocation { buffer: Some(buffer), pool: Arc::downgrade(self) }
    }

    /// Gives all free buffers back to the driver.
    pub(super) fn release_free(&self) {
        let mut state = self.lock();
        state.free.clear();
        state.usage.pooled = 0;
    }

    /// Sets the peak to what is held now.
    pub(super) fn reset_peak(&self) {
        let mut state = self.lock();
        state.usage.peak = state.usage.used + state.usage.pooled;
    }

    pub(super) fn usage(&self) -> MemoryUse {
        self.lock().usage
    }
}

fn create_buffer(device: &wgpu::Device, size: u64, what: &str) -> Result<wgpu::Buffer> {
    let scope = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(what),
        size,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    match pollster::block_on(scope.pop()) {
        None => Ok(buffer),
        Some(_) => Err(GpuError::OutOfMemory { what: what.into(), bytes: size }),
    }
}

#[cfg(test)]
mod tests {
    use super::size_class;

    #[test]
    fn size_classes_waste_little_and_are_aligned() {
        for bytes in [0, 1, 255, 256, 257, 1000, 4096, 4097, 100_000, 1 << 20, (1 << 27) + 1] {
            let class = size_class(bytes);
            assert!(class >= bytes.max(1) && class.is_multiple_of(256), "{bytes} -> {class}");
            assert!(class <= bytes + bytes / 8 + 256, "{bytes} -> {class}");
        }
    }
}
