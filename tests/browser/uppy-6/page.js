import AwsS3 from "@uppy/aws-s3";
import Uppy from "@uppy/core";
import Dashboard from "@uppy/dashboard";

import "@uppy/core/css/style.min.css";
import "@uppy/dashboard/css/style.min.css";

/** The function of docs/uppy.md. */
const signRequest = (service, token) => async (request) => {
  const answer = await fetch(`${service}/s3/sign`, {
    method: "POST",
    headers: { ...(token && { authorization: `Bearer ${token}` }), "content-type": "application/json" },
    body: JSON.stringify({ ...request, policy: "default" }),
  });
  const signed = await answer.json();
  if (!answer.ok) throw new Error(signed.detail);
  return signed;
};

window.start = (service, { sign, token, ...options }) => {
  window.uppy = new Uppy()
    .use(Dashboard, { inline: true, target: "#dashboard" })
    .use(AwsS3, { ...(sign ? { signRequest: signRequest(service, token) } : { companionEndpoint: service }), ...options });
};
