//! Server reflection, so that `grpcurl` and others need no files: the contract
//! of each service on a socket, and those of the details in errors.

use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::service::Routes;
use tonic_reflection::server::Builder;

use crate::api::DESCRIPTORS;

/// Adds both versions of reflection, which show these services and no others.
pub(super) fn add(routes: Routes, services: &[&str]) -> Routes {
    let builder = || {
        let builder = Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_file_descriptor_set(error_details());
        services
            .iter()
            .fold(builder, |builder, name| builder.with_service_name(*name))
    };
    routes
        .add_service(builder().build_v1().expect("build.rs made what is in it"))
        .add_service(
            builder()
                .build_v1alpha()
                .expect("build.rs made what is in it"),
        )
}

/// `google.rpc.ErrorInfo` and its like; without the status around them, which
/// our own files hold.
fn error_details() -> FileDescriptorSet {
    let set = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET);
    let mut set = set.unwrap_or_default();
    set.file
        .retain(|file| file.name().ends_with("error_details.proto"));
    set
}
