import Dropzone, { type DropzoneFile } from "dropzone";
import "dropzone/dist/dropzone.css";

import { createClient } from "presignd-client";

const client = createClient({ url: "http://localhost:3000" });

class DirectDropzone extends Dropzone {
  override uploadFiles(files: DropzoneFile[]) {
    for (const file of files) {
      const upload = client.upload(file, {
        // The total of an empty file is 0.
        onProgress: ({ loaded, total }) => this.emit("uploadprogress", file, (100 * loaded) / (total || 1), loaded),
      });
      const abort = (canceled: DropzoneFile) => {
        // The bucket's lifecycle rule removes what this cannot.
        if (canceled === file) upload.abort().catch(() => {});
      };
      this.on("canceled", abort);
      upload
        .then(
          ({ key }) => this._finished([file], key, undefined),
          (error: Error) => this._errorProcessing([file], error.message),
        )
        .finally(() => this.off("canceled", abort));
    }
  }
}

// Dropzone wants a URL, which it never calls here.
new DirectDropzone("form", { url: "/" });
