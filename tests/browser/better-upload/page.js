import { uploadFiles, useUploadFiles } from "@better-upload/client";
import { createElement as h } from "react";
import { createRoot } from "react-dom/client";

/** What a user sees of an upload: the reason why it failed, and each file. */
function view(error, files, isSettled) {
  return [
    h("p", { key: "error", role: "alert" }, error?.message),
    h("p", { key: "settled", id: "settled" }, isSettled ? "settled" : ""),
    h("ul", { key: "files" }, files.map((file) => h("li", { key: file.objectInfo.key }, `${file.name}: ${file.status}`))),
  ];
}

/** The hook of better-upload, as its documentation shows it. */
function Uploader({ options, metadata }) {
  const { upload, error, progresses, isSettled, isError } = useUploadFiles(options);
  const choose = (event) => upload(event.target.files, { metadata });
  return h("main", null, h("input", { type: "file", multiple: true, onChange: choose }), view(error, progresses, isSettled || isError));
}

/** Its function. */
function startFunction(root, { options, metadata }) {
  const files = new Map();
  const show = (error, isSettled) =>
    root.render(h("main", null, h("input", { type: "file", multiple: true, onChange: choose }), view(error, [...files.values()], isSettled)));
  const choose = async (event) => {
    const onFileStateChange = ({ file }) => {
      files.set(file.objectInfo.key, file);
      show(null, false);
    };
    try {
      await uploadFiles({ ...options, files: event.target.files, metadata, onFileStateChange });
      show(null, true);
    } catch (error) {
      show(error, true);
    }
  };
  show(null, false);
}

window.start = (service, { hook, token, metadata, ...options }) => {
  const root = createRoot(document.querySelector("#dashboard"));
  const cancel = new AbortController();
  window.cancel = () => cancel.abort();
  const all = {
    api: `${service}/better-upload`,
    route: "default",
    headers: token && { authorization: `Bearer ${token}` },
    signal: cancel.signal,
    ...options,
  };
  if (hook) root.render(h(Uploader, { options: all, metadata }));
  else startFunction(root, { options: all, metadata });
};
