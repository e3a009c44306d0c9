//! Compact forms of a capture's large fields for serde: frames and numbers as byte strings, and
//! maps as byte strings in half precision.

/// The form of frames of bytes.
pub mod byte_frames {
    use serde::de::{Error, SeqAccess, Visitor};
    use serde::{Deserializer, Serialize, Serializer};

    use crate::sampling::limits::MOST_FRAMES;

    /// Writes each frame as one byte string.
    pub fn serialize<S: Serializer>(frames: &[Vec<u8>], to: S) -> Result<S::Ok, S::Error> {
        frames.iter().map(|frame| serde_bytes::Bytes::new(frame)).collect::<Vec<_>>().serialize(to)
    }

    /// Reads frames, at most as many as a clip may have. The limit is necessary because an empty
    /// frame takes 24 times as much memory as space in the file.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Vec<u8>>, D::Error> {
        from.deserialize_seq(FramesVisitor)
    }

    struct FramesVisitor;

    impl<'de> Visitor<'de> for FramesVisitor {
        type Value = Vec<Vec<u8>>;

        fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(to, "at most {MOST_FRAMES} frames")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
            let mut frames = Vec::new();
            while let Some(frame) = from.next_element::<serde_bytes::ByteBuf>()? {
                if frames.len() == MOST_FRAMES {
                    return Err(A::Error::invalid_length(MOST_FRAMES + 1, &self));
                }
                frames.push(frame.into_vec());
            }
            Ok(frames)
        }
    }
}

/// The form of values in full precision, with four bytes each, little-endian.
pub mod floats {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes the values as one byte string.
    pub fn serialize<S: Serializer>(values: &[f32], to: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        serde_bytes::ByteBuf::from(bytes).serialize(to)
    }

    /// Reads values.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f32>, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(from).map_err(D::Error::custom)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

/// The form of values in half precision, with two bytes each, little-endian.
pub mod halves {
    use half::f16;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes the values as one byte string. A value that is too large for half precision becomes
    /// its largest number, not infinity.
    pub fn serialize<S: Serializer>(values: &Option<Vec<f32>>, to: S) -> Result<S::Ok, S::Error> {
        let largest = f16::MAX.to_f32();
        let bytes = |value: &f32| f16::from_f32(value.clamp(-largest, largest)).to_le_bytes();
        let packed = values.as_ref().map(|values| values.iter().flat_map(bytes).collect::<Vec<u8>>());
        packed.map(serde_bytes::ByteBuf::from).serialize(to)
    }

    /// Reads values.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<f32>>, D::Error> {
        let bytes = Option::<serde_bytes::ByteBuf>::deserialize(from).map_err(D::Error::custom)?;
        Ok(bytes
            .map(|bytes| bytes.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f32()).collect()))
    }
}
