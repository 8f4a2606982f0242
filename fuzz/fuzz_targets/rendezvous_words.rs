#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| karere::fuzzing::rendezvous_words(bytes));
