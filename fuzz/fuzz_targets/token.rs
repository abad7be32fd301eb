//! See `judge.rs`, which is all that is fuzzed.

#![no_main]

#[path = "../judge.rs"]
mod judge;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    judge::judge(bytes);
});
