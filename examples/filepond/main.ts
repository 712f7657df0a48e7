import { create } from "filepond";
import "filepond/dist/filepond.min.css";

import { createClient } from "presignd-client";

const client = createClient({ url: "http://localhost:3000" });

// The form that FilePond is in sends the keys of the uploaded files.
create(document.querySelector("input")!, {
  // Otherwise a refusal is just an "Error during upload".
  labelFileProcessingError: (error: { body: string }) => error.body,
  server: {
    process: (_field, file, _metadata, load, error, progress, abort) => {
      const upload = client.upload(file as File, {
        onProgress: ({ loaded, total }) => progress(true, loaded, total),
      });
      upload.then(
        ({ key }) => load(key),
        (reason: Error) => error(reason.message),
      );
      return {
        abort() {
          // The bucket's lifecycle rule removes what this cannot.
          upload.abort().catch(() => {});
          abort();
        },
      };
    },
    revert: null,
  },
});
