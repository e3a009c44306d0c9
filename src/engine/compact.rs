//! Compact serde forms of a capture's large fields: frames as byte strings, maps as half-precision byte strings.

/// Frames of bytes.
pub mod byte_frames {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes each frame as one byte string.
    pub fn serialize<S: Serializer>(frames: &[Vec<u8>], to: S) -> Result<S::Ok, S::Error> {
        frames.iter().map(|frame| serde_bytes::Bytes::new(frame)).collect::<Vec<_>>().serialize(to)
    }

    /// Reads them back.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Vec<u8>>, D::Error> {
        let frames = Vec::<serde_bytes::ByteBuf>::deserialize(from).map_err(D::Error::custom)?;
        Ok(frames.into_iter().map(serde_bytes::ByteBuf::into_vec).collect())
    }
}

/// Values in half precision, two bytes each, little-endian.
pub mod halves {
    use half::f16;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes the values as one byte string. What is too large for half precision becomes its largest number, not infinity.
    pub fn serialize<S: Serializer>(values: &Option<Vec<f32>>, to: S) -> Result<S::Ok, S::Error> {
        let largest = f16::MAX.to_f32();
        let bytes = |value: &f32| f16::from_f32(value.clamp(-largest, largest)).to_le_bytes();
        let packed = values.as_ref().map(|values| values.iter().flat_map(bytes).collect::<Vec<u8>>());
        packed.map(serde_bytes::ByteBuf::from).serialize(to)
    }

    /// Reads them back.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<f32>>, D::Error> {
        let bytes = Option::<serde_bytes::ByteBuf>::deserialize(from).map_err(D::Error::custom)?;
        Ok(bytes
            .map(|bytes| bytes.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f32()).collect()))
    }
}
