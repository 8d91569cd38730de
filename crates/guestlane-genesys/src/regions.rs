//! Regions of the public platform and the hosts of each (docs/platform.md#hosts).

use crate::base_url::{BaseUrl, InvalidBaseUrl};

/// A region of the public platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// The name of the AWS region.
    pub aws: &'static str,
    /// The domain of the region's hosts.
    pub domain: &'static str,
}

macro_rules! regions {
    ($($aws:literal $domain:literal)*) => {
        /// The regions that the platform's own SDKs know. The list is not a limit: any domain is
        /// accepted.
        pub const REGIONS: &[Region] = &[$(Region { aws: $aws, domain: $domain }),*];
    };
}

// `PureCloudRegionHosts` of the platform's JavaScript and Python clients.
regions! {
    "us-east-1" "mypurecloud.com"
    "us-east-2" "use2.us-gov-pure.cloud"
    "us-west-2" "usw2.pure.cloud"
    "ca-central-1" "cac1.pure.cloud"
    "sa-east-1" "sae1.pure.cloud"
    "mx-central-1" "mxc1.pure.cloud"
    "eu-west-1" "mypurecloud.ie"
    "eu-west-2" "euw2.pure.cloud"
    "eu-central-1" "mypurecloud.de"
    "eu-central-2" "euc2.pure.cloud"
    "ap-south-1" "aps1.pure.cloud"
    "ap-northeast-1" "mypurecloud.jp"
    "ap-northeast-2" "apne2.pure.cloud"
    "ap-northeast-3" "apne3.pure.cloud"
    "ap-southeast-1" "apse1.pure.cloud"
    "ap-southeast-2" "mypurecloud.com.au"
    "me-central-1" "mec1.pure.cloud"
    "eusc-de-east-1" "edee1.eusc-pure.cloud"
}

/// Base URLs of the platform's services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// The OAuth service.
    pub login: BaseUrl,
    /// The REST API.
    pub api: BaseUrl,
    /// The guest socket; `https` stands for `wss`.
    pub webmessaging: BaseUrl,
    /// The configuration of web deployments.
    pub cdn: BaseUrl,
}

impl Endpoints {
    /// Uses one origin for all services: for the surface `rest`, the simulator, or a gateway.
    pub fn one_origin(base: BaseUrl) -> Self {
        Self {
            login: base.clone(),
            api: base.clone(),
            webmessaging: base.clone(),
            cdn: base,
        }
    }

    /// Returns the hosts of a region, given by its domain (`mypurecloud.ie`) or the name of its AWS
    /// region (`eu-west-1`), in any case.
    ///
    /// # Errors
    ///
    /// Fails if the domain does not form a valid URL.
    pub fn for_region(region: &str) -> Result<Self, InvalidBaseUrl> {
        let region = region.to_ascii_lowercase();
        let domain = REGIONS
            .iter()
            .find(|known| known.aws == region)
            .map_or(region.as_str(), |known| known.domain);
        let host = |name: &str| format!("https://{name}.{domain}").parse();
        Ok(Self {
            login: host("login")?,
            api: host("api")?,
            webmessaging: host("webmessaging")?,
            cdn: host("api-cdn")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn region_table_has_18_unique_domains_and_names() {
        let domains: HashSet<_> = REGIONS.iter().map(|region| region.domain).collect();
        let names: HashSet<_> = REGIONS.iter().map(|region| region.aws).collect();
        assert_eq!((REGIONS.len(), domains.len(), names.len()), (18, 18, 18));
    }

    #[test]
    fn region_is_resolved_by_either_name_or_by_any_domain() {
        let ireland = Endpoints::for_region("mypurecloud.ie").unwrap();
        assert_eq!(Endpoints::for_region("eu-west-1").unwrap(), ireland);
        assert_eq!(Endpoints::for_region("EU-West-1").unwrap(), ireland);
        assert_eq!(ireland.login.as_str(), "https://login.mypurecloud.ie");
        assert_eq!(ireland.api.as_str(), "https://api.mypurecloud.ie");
        assert_eq!(
            ireland.webmessaging.as_str(),
            "https://webmessaging.mypurecloud.ie"
        );
        assert_eq!(ireland.cdn.as_str(), "https://api-cdn.mypurecloud.ie");
        assert_eq!(
            Endpoints::for_region("new1.pure.cloud")
                .unwrap()
                .api
                .as_str(),
            "https://api.new1.pure.cloud"
        );
        assert_eq!(
            Endpoints::for_region("localhost:8443")
                .unwrap()
                .api
                .as_str(),
            "https://api.localhost:8443"
        );
    }
}
