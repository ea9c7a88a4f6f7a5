//! Compiles `proto/` with a protobuf compiler written in Rust: no `protoc` is
//! needed on the machine that builds.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

/// The contracts, below `proto/`.
const PROTOS: [&str; 4] = [
    "sealkeeper/v1/signer.proto",
    "sealkeeper/v1/admin.proto",
    "sealkeeper/v1/configuration.proto",
    "sealkeeper/v1/approvals.proto",
];

/// Messages that hold claims, signing inputs, tokens or signatures: `src/api`
/// writes their `Debug` by hand, so that none reaches a log.
const SECRET: [&str; 4] = [
    "sealkeeper.v1.SignJwtRequest",
    "sealkeeper.v1.SignJwtResponse",
    "sealkeeper.v1.SignJwsRequest",
    "sealkeeper.v1.SignJwsResponse",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=proto");

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        .include_source_info(true)
        .include_imports(true)
        .open_files(PROTOS)?;

    // For gRPC reflection: what a client needs to call without the files.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out.join("sealkeeper.bin"),
        compiler.encode_file_descriptor_set(),
    )?;

    tonic_prost_build::configure()
        .skip_debug(SECRET)
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
