//! Health and reflection, by the standard clients.

use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::{v1, v1alpha};

use sealkeeper::api::client;

use super::fake::{Signer, health};
use super::*;

fn service(name: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: name.into(),
    }
}

async fn connect(server: &Server) -> Channel {
    client::connect(server.path()).await.unwrap()
}

async fn check(client: &mut HealthClient<Channel>, name: &str) -> Option<ServingStatus> {
    match client.check(service(name)).await {
        Ok(response) => Some(response.into_inner().status()),
        Err(status) if status.code() == Code::NotFound => None,
        Err(status) => panic!("{status}"),
    }
}

#[tokio::test]
async fn health_is_told_of_the_agent_and_of_each_key_set() {
    let signer = Arc::new(Signer::default());
    *signer.health.lock().unwrap() = vec![
        health("main", None, None),
        health("other", None, Some("NO_ACTIVE_KEY")),
    ];
    let server = Server::signer(&signer, Limits::default());
    let mut client = HealthClient::new(connect(&server).await);
    for (name, status) in [
        ("", Some(ServingStatus::Serving)),
        ("sealkeeper.v1.Signer", Some(ServingStatus::Serving)),
        ("sealkeeper.v1.Signer/main", Some(ServingStatus::Serving)),
        (
            "sealkeeper.v1.Signer/other",
            Some(ServingStatus::NotServing),
        ),
        ("sealkeeper.v1.Signer/elsewhere", None),
    ] {
        assert_eq!(check(&mut client, name).await, status, "{name}");
    }
}

#[tokio::test]
async fn health_follows_what_changes_and_ends_with_the_server() {
    let signer = Arc::new(Signer::default());
    *signer.health.lock().unwrap() = vec![health("main", None, None)];
    let mut server = Server::signer(&signer, Limits::default());
    let mut client = HealthClient::new(connect(&server).await);
    let watch = client.watch(service("sealkeeper.v1.Signer/main")).await;
    let mut watch = watch.unwrap().into_inner();
    let mut next = async || -> Option<ServingStatus> {
        let message: Option<HealthCheckResponse> = within(watch.message()).await.unwrap();
        message.map(|message| message.status())
    };
    assert_eq!(next().await, Some(ServingStatus::Serving));
    *signer.health.lock().unwrap() = vec![health("main", None, Some("DEVICE_UNAVAILABLE"))];
    signer.changes.send_replace(());
    assert_eq!(next().await, Some(ServingStatus::NotServing));
    let mut signers = client.watch(service("sealkeeper.v1.Signer")).await;
    let signers = within(signers.as_mut().unwrap().get_mut().message()).await;
    let none_can = signers.unwrap().unwrap().status();
    assert_eq!(none_can, ServingStatus::NotServing);
    let all = check(&mut client, "").await;
    assert_eq!(all, Some(ServingStatus::Serving));
    server.stop();
    // It may be told once more.
    while next().await.is_some() {}
    server.ended().await;
}

#[tokio::test]
async fn reflection_shows_the_services_of_a_socket_and_their_types() {
    let signer = Arc::new(Signer::default());
    let server = Server::signer(&signer, Limits::default());
    let channel = connect(&server).await;
    let ask = |request| v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    };
    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;
    let asked = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(
            "sealkeeper.v1.SignBatchRequest".into(),
        )),
        ask(MessageRequest::FileByFilename(
            "google/rpc/status.proto".into(),
        )),
        ask(MessageRequest::FileContainingSymbol(
            "google.rpc.ErrorInfo".into(),
        )),
    ];
    let replies = v1::server_reflection_client::ServerReflectionClient::new(channel.clone())
        .server_reflection_info(tokio_stream::iter(asked))
        .await;
    let mut replies = replies.unwrap().into_inner();
    let mut files = 0;
    while let Some(reply) = within(replies.message()).await.unwrap() {
        match reply.message_response.unwrap() {
            MessageResponse::ListServicesResponse(list) => {
                let names: Vec<_> = list.service.into_iter().map(|one| one.name).collect();
                assert!(names.contains(&"sealkeeper.v1.Signer".to_owned()));
                assert!(names.contains(&"grpc.health.v1.Health".to_owned()));
                assert!(!names.contains(&"sealkeeper.v1.KeyAdmin".to_owned()));
            }
            MessageResponse::FileDescriptorResponse(_) => files += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(files, 3);

    // What older tools speak.
    use v1alpha::server_reflection_request::MessageRequest as Older;
    let list = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(Older::ListServices(String::new())),
    };
    let replies = v1alpha::server_reflection_client::ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::iter([list]))
        .await;
    let reply = within(replies.unwrap().get_mut().message()).await;
    assert!(reply.unwrap().is_some());
}
