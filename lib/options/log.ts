import type { LogNames } from '../../types'
import { checkObject, invalid, isWhole, quoted, show } from './values'

/** Checked options of withRealIp() and bindLogger, as plain values. */
export interface LogOptions {
  readonly names: LogNames
  readonly mask: Mask | undefined
}

/** How many bits of an address are kept. */
export interface Mask {
  readonly ipv4: number
  readonly ipv6: number
}

const logNames: ReadonlyArray<LogNames> = ['plain', 'opentelemetry']
const maskExample = { ipv4: 24, ipv6: 48 }
const example = { names: 'opentelemetry', mask: maskExample }

/** Checks { names, mask }; `option` names them in errors. Throws FST_REAL_IP_INVALID_OPTION. */
export function checkLogOptions (given: unknown, option: string): LogOptions {
  const { names = 'plain', mask } = checkObject(given, option, example)
  if (!logNames.includes(names as LogNames)) {
    throw invalid(`'names' of ${option} takes ${quoted(logNames)}, not ${show(names)}`)
  }
  return Object.freeze({ names: names as LogNames, mask: mask === undefined ? undefined : checkMask(mask, option) })
}

function checkMask (given: unknown, option: string): Mask {
  const { ipv4 = maskExample.ipv4, ipv6 = maskExample.ipv6 } = checkObject(given, `'mask' of ${option}`, maskExample)
  const check = (name: string, bits: unknown, most: number) => {
    if (isWhole(bits, 0, most)) return bits
    throw invalid(`'mask.${name}' of ${option} must be a whole number from 0 to ${most}, the bits to keep, not ` +
      show(bits))
  }
  return Object.freeze({ ipv4: check('ipv4', ipv4, 32), ipv6: check('ipv6', ipv6, 128) })
}
