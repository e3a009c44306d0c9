//! Marks that submits leave, to notice work that was not done.
//!
//! Some drivers and wgpu's Metal backend report a command buffer that failed as done. What the
//! buffer should have written is then zero or old. So each submit ends with the copy of a word into
//! a table, and each read-back checks the words of all submits since the one before.

use super::{Gpu, GpuError, Result};

/// A word that no failure writes.
const DONE: u32 = 0xd17_5c09;
/// Words in the table. If more submits come between two read-backs, the oldest are not checked.
const WORDS: u64 = 256;

/// The table of one stream.
#[derive(Debug)]
pub(super) struct Marks {
    /// One word, [`DONE`].
    word: wgpu::Buffer,
    table: wgpu::Buffer,
    /// Submits since the last read-back.
    submits: u64,
}

impl Marks {
    /// Bytes of the table.
    pub(super) const BYTES: u64 = 4 * WORDS;

    pub(super) fn new(gpu: &Gpu) -> Self {
        let buffer = |label, size, usage, mapped_at_creation| {
            gpu.device().create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation })
        };
        let word = buffer("mark", 4, wgpu::BufferUsages::COPY_SRC, true);
        // A lost device cannot map; the loss is reported by the next check.
        if let Ok(mut view) = word.get_mapped_range_mut(..) {
            view.slice(..).copy_from_slice(&DONE.to_le_bytes());
        }
        word.unmap();
        let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        Self { word, table: buffer("marks", Self::BYTES, usage, false), submits: 0 }
    }

    /// Encodes the mark at the end of a submit.
    pub(super) fn leave(&mut self, encoder: &mut wgpu::CommandEncoder) {
        encoder.copy_buffer_to_buffer(&self.word, 0, &self.table, 4 * (self.submits % WORDS), 4);
        self.submits += 1;
    }

    /// Encodes the read-back of the table to byte `at` of a buffer, with a mark of the read-back
    /// itself, and clears the table. Returns the number of marks that must be there.
    pub(super) fn read(&mut self, encoder: &mut wgpu::CommandEncoder, to: &wgpu::Buffer, at: u64) -> u64 {
        self.leave(encoder);
        encoder.copy_buffer_to_buffer(&self.table, 0, to, at, Self::BYTES);
        encoder.clear_buffer(&self.table, 0, None);
        std::mem::take(&mut self.submits).min(WORDS)
    }

    /// Checks the bytes of a table that was read back.
    ///
    /// # Errors
    /// A mark is missing: a submit was not done.
    pub(super) fn check(table: &[u8], expected: u64) -> Result<()> {
        let (words, _) = table.as_chunks::<4>();
        let missing = words.iter().take(expected as usize).filter(|word| **word != DONE.to_le_bytes()).count();
        if missing > 0 {
            return Err(GpuError::NotDone(missing));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_mark_is_found() {
        let mut table = vec![0; Marks::BYTES as usize];
        for word in table.chunks_mut(4).take(3) {
            word.copy_from_slice(&DONE.to_le_bytes());
        }
        assert!(Marks::check(&table, 0).is_ok() && Marks::check(&table, 3).is_ok());
        assert!(matches!(Marks::check(&table, 5), Err(GpuError::NotDone(2))));
    }
}
