import Dropzone, { type DropzoneFile } from "dropzone";
import "dropzone/dist/dropzone.css";

import { createClient } from "presignd-client";

const client = createClient({ url: "http://localhost:3000" });

class DirectDropzone extends Dropzone {
  override uploadFiles(files: DropzoneFile[]) {
    for (const file of files) {
      const upload = client.upload(file, {
        onProgress: ({ loaded, total }) => this.emit("uploadprogress", file, (100 * loaded) / total, loaded),
      });
      upload.then(
        ({ key }) => this._finished([file], key, undefined),
        (error: Error) => this._errorProcessing([file], error.message),
      );
      this.on("canceled", (canceled) => {
        // The bucket's lifecycle rule removes what this cannot.
        if (canceled === file) upload.abort().catch(() => {});
      });
    }
  }
}

// Dropzone wants a URL, which it never calls here.
new DirectDropzone("form", { url: "/" });
