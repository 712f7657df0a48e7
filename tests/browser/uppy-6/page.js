import AwsS3 from "@uppy/aws-s3";
import Uppy from "@uppy/core";
import Dashboard from "@uppy/dashboard";

import "@uppy/core/css/style.min.css";
import "@uppy/dashboard/css/style.min.css";

window.start = (service, options) => {
  window.uppy = new Uppy()
    .use(Dashboard, { inline: true, target: "#dashboard" })
    .use(AwsS3, { companionEndpoint: service, ...options });
};
