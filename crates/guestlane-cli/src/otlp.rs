//! Exports traces to a collector (OTLP over HTTP), if one is configured. One trace joins a request,
//! the steps of its session, each call to the platform, the audit record and the webhook delivery.

use std::time::Duration;

use bytes::Bytes;
use guestlane::Error;
use guestlane_cli::config::{OTLP_ENDPOINT, Settings};
use guestlane_core::request::ValidationError;
use guestlane_runtime::http_client::HttpClient;
use guestlane_runtime::{
    Clock, TlsRoots, TraceParent,
    trace_context::{self, TraceHooks},
};
use http_body_util::Full;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Timeout for exporting the last spans when the process ends.
const LAST: Duration = Duration::from_secs(3);

/// The trace exporter. [`end`](Self::end) exports the remaining spans.
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    /// Starts the exporter to the collector in the settings, or returns `None` if they name none.
    ///
    /// # Errors
    /// The endpoint is invalid.
    pub(crate) fn start(settings: &Settings) -> Result<Option<Self>, Error> {
        let Some(endpoint) = settings.traces()? else {
            return Ok(None);
        };
        let sender = Sender {
            transport: HttpClient::new(Clock::system(), LAST, &TlsRoots::System)?,
            runtime: tokio::runtime::Handle::current(),
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(sender)
            .with_endpoint(endpoint.as_str())
            .build();
        let exporter = exporter.map_err(|error| {
            let fix = "write it like https://collector.example.com/v1/traces";
            Error::Settings(vec![ValidationError::new(
                OTLP_ENDPOINT,
                format!("is not a valid trace endpoint: {error}"),
                fix,
            )])
        })?;
        let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_attribute(version.clone()).build();
        // The builder reads `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`; without them the
        // service is named `guestlane`.
        let named = resource
            .get(&"service.name".into())
            .is_some_and(|name| !name.as_str().starts_with("unknown_service"));
        let resource = match named {
            true => resource,
            false => Resource::builder()
                .with_service_name("guestlane")
                .with_attribute(version)
                .build(),
        };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        trace_context::install(TraceHooks {
            set_parent: join,
            parent_of,
        });
        Ok(Some(Self(provider)))
    }

    /// The tracer that converts spans to OpenTelemetry.
    pub(crate) fn tracer(&self) -> opentelemetry_sdk::trace::SdkTracer {
        self.0.tracer("guestlane")
    }

    /// Exports the remaining spans. Blocks.
    pub(crate) fn end(&self) {
        let _ = self.0.shutdown_with_timeout(LAST);
    }
}

fn join(span: &Span, parent: TraceParent) {
    let (trace, parent, sampled) = parent.parts();
    let flags = if sampled {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::default()
    };
    let context = SpanContext::new(
        TraceId::from(trace),
        SpanId::from(parent),
        flags,
        true,
        TraceState::default(),
    );
    let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(context));
}

fn parent_of(span: &Span) -> Option<TraceParent> {
    let context = span.context();
    let context = context.span().span_context().clone();
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |number: u64, byte| number << 8 | u64::from(*byte))
    };
    TraceParent::new(
        u128::from_be_bytes(context.trace_id().to_bytes()),
        number(&context.span_id().to_bytes()),
        context.is_sampled(),
    )
}

/// The HTTP client of the exporter. It reuses the client and the runtime of the executable, so that
/// the executable has only one HTTP stack.
#[derive(Debug)]
struct Sender {
    transport: HttpClient,
    runtime: tokio::runtime::Handle,
}

#[async_trait::async_trait]
impl opentelemetry_http::HttpClient for Sender {
    async fn send_bytes(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, opentelemetry_http::HttpError> {
        let transport = self.transport.clone();
        let sending = async move {
            let now = Clock::system().now();
            transport.send(request.map(Full::new), now + LAST).await
        };
        let sent = self.runtime.spawn(sending).await?;
        let now = Clock::system().monotonic();
        match &sent {
            Ok(answer) if answer.status.is_success() => trace_context::COLLECTOR.well(now),
            Ok(answer) => {
                trace_context::COLLECTOR.failed(&format!("HTTP {}", answer.status.as_u16()), now)
            }
            Err(error) => trace_context::COLLECTOR.failed(&error.to_string(), now),
        }
        let answer = sent?;
        let mut response = http::Response::new(answer.body);
        (*response.status_mut(), *response.headers_mut()) = (answer.status, answer.headers);
        Ok(response)
    }
}
