//! See `../proof.rs`, which is all that is fuzzed.

#![no_main]

#[path = "../proof.rs"]
mod proof;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    proof::judge(bytes);
});
