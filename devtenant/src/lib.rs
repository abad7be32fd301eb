//! The dev tenant.
