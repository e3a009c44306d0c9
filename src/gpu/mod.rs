//! Room `gpu`.
