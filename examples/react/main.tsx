import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { createClient } from "presignd-client";
import { useUploads } from "presignd-client/react";

const client = createClient({ url: "http://localhost:3000" });

function Uploads() {
  const { files, add, pause, resume, remove } = useUploads(client);
  return (
    <>
      <input
        type="file"
        multiple
        onChange={(event) => {
          add(event.target.files ?? []);
          event.target.value = ""; // otherwise choosing the same file again would not be a change
        }}
      />
      <ul>
        {files.map(({ id, name, state, loaded, total, error, key }) => (
          <li key={id}>
            {name} <progress value={loaded} max={total || 1} /> {error?.message ?? key ?? state}
            {state === "uploading" && <button onClick={() => pause(id)}>Pause</button>}
            {(state === "paused" || state === "failed") && <button onClick={() => resume(id)}>Resume</button>}
            <button onClick={() => remove(id)}>Remove</button>
          </li>
        ))}
      </ul>
    </>
  );
}

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <Uploads />
  </StrictMode>,
);
