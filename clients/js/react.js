// A React hook for uploads.

import { useCallback, useInsertionEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";

import { UploadList } from "./list.js";

/** @typedef {import("./list.js").UploadItem} UploadItem */

/** @type {readonly UploadItem[]} On a server there are none. */
const NONE = [];
const none = () => NONE;

/**
 * The uploads of a component. They go on when the component is unmounted.
 *
 * @param {import("./index.js").Client} client Create it once, outside the component.
 * @param {import("./list.js").ListOptions} [options] For files that are added from now on.
 */
export function useUploads(client, options) {
  const latest = useRef(options);
  // A rendering that React discards must not change them, but effects of components inside may already add files.
  useInsertionEffect(() => {
    latest.current = options;
  });
  const listOf = () => {
    const uploads = new UploadList(client, ({ policy }) => policy === (latest.current?.policy ?? client.policy));
    return { client, uploads };
  };
  const [list, setList] = useState(listOf);
  // Another client has uploads of its own.
  if (list.client !== client) setList(listOf);
  const { uploads } = list;
  const files = useSyncExternalStore(uploads.subscribe, uploads.getSnapshot, none);
  const add = useCallback((/** @type {Iterable<File>} */ files) => uploads.add(files, latest.current), [uploads]);
  return useMemo(
    () => ({
      files,
      add,
      pause: (/** @type {string} */ id) => uploads.pause(id),
      resume: (/** @type {string} */ id) => uploads.resume(id, latest.current),
      remove: (/** @type {string} */ id) => uploads.remove(id, latest.current),
    }),
    [files, add, uploads],
  );
}
