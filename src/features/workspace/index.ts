// The public face of `sojourn/workspace`, nothing else.
export type { FileContent } from './file-writer.js'
export { type MulterFile, type MulterSaved, type MulterStorage, workspaceStorage } from './multer.js'
export { safeFileName } from './names.js'
export {
  type BusboyLike,
  type ReceivedFile,
  type ReceivedForm,
  type ReceiveLimits,
  type ReceiveOptions,
  receiveFiles,
} from './receive.js'
export type { RangeOfFile } from './serving.js'
export type {
  OpenedFile,
  SaveOptions,
  Upload,
  Workspace,
  WorkspaceFile,
  WorkspaceUsage,
} from './workspace.js'
export { type SweepResult, type Workspaces, type WorkspacesOptions, workspaceOf, workspaces } from './workspaces.js'
