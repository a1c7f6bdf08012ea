//! Generated from the definitions of our server: the modules are nested as the packages are, because the code says so.
#![expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated from the commented .proto files"
)]

pub(crate) mod envoy {
    pub(crate) mod config {
        pub(crate) mod core {
            pub(crate) mod v3 {
                tonic::include_proto!("envoy.config.core.v3");
            }
        }
    }
    pub(crate) mod extensions {
        pub(crate) mod common {
            pub(crate) mod ratelimit {
                pub(crate) mod v3 {
                    tonic::include_proto!("envoy.extensions.common.ratelimit.v3");
                }
            }
        }
    }
    pub(crate) mod service {
        pub(crate) mod ratelimit {
            pub(crate) mod v3 {
                tonic::include_proto!("envoy.service.ratelimit.v3");
            }
        }
    }
    pub(crate) mod r#type {
        pub(crate) mod v3 {
            tonic::include_proto!("envoy.r#type.v3");
        }
    }
}
