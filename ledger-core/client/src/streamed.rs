//! The calls that may travel over a stream, and how they travel as requests.

use std::future::Future;

use ledger_proto::v1;
use ledger_proto::v1::answer::Answer;
use ledger_proto::v1::call::Call;
use ledger_proto::v1::write_service_client::WriteServiceClient;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::client::{ANSWER_BYTES_MAX, REQUEST_BYTES_MAX};
use crate::read::reader;

/// A request that has a place in `Call`.
pub(crate) trait StreamedCall: Clone {
    /// What it is answered with.
    type Answer;

    fn into_call(self) -> Call;

    /// `None` when the answer is to something else.
    fn answer(answer: Answer) -> Option<Self::Answer>;

    fn request(
        channel: Channel,
        request: Request<Self>,
    ) -> impl Future<Output = Result<Response<Self::Answer>, Status>>;
}

impl StreamedCall for v1::GetRequest {
    type Answer = v1::GetResponse;

    fn into_call(self) -> Call {
        Call::Get(self)
    }

    fn answer(answer: Answer) -> Option<v1::GetResponse> {
        if let Answer::Get(get) = answer { Some(get) } else { None }
    }

    async fn request(channel: Channel, request: Request<Self>) -> Result<Response<v1::GetResponse>, Status> {
        reader(channel).get(request).await
    }
}

impl StreamedCall for v1::CheckRequest {
    type Answer = v1::CheckResponse;

    fn into_call(self) -> Call {
        Call::Check(self)
    }

    fn answer(answer: Answer) -> Option<v1::CheckResponse> {
        if let Answer::Check(check) = answer { Some(check) } else { None }
    }

    async fn request(
        channel: Channel,
        request: Request<Self>,
    ) -> Result<Response<v1::CheckResponse>, Status> {
        reader(channel).check(request).await
    }
}

impl StreamedCall for v1::WriteRequest {
    type Answer = v1::WriteResponse;

    fn into_call(self) -> Call {
        Call::Write(self)
    }

    fn answer(answer: Answer) -> Option<v1::WriteResponse> {
        if let Answer::Write(write) = answer { Some(write) } else { None }
    }

    async fn request(
        channel: Channel,
        request: Request<Self>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        WriteServiceClient::new(channel)
            .max_decoding_message_size(ANSWER_BYTES_MAX)
            .max_encoding_message_size(REQUEST_BYTES_MAX)
            .write(request)
            .await
    }
}
