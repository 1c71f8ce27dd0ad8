import { ParseProblem } from './parse-problem.ts';

/**
 * Regular expressions run on a service's main thread over every row, so one that can take exponential time would stop the process. Refused: back
 * references, look-around (RE2 has neither), and a repeated group that itself holds a repetition or a choice. What is left is polynomial at worst.
 */
export function checkRegex(pattern: string, position: number): void {
  try {
    new RegExp(pattern, 'u');
  } catch (error) {
    throw new ParseProblem(`bad regular expression: ${error instanceof Error ? error.message : error}`, position);
  }
  const groups: boolean[] = [];
  let repeats = false;
  for (let i = 0; i < pattern.length; i++) {
    const char = pattern[i];
    if (char === '\\') {
      if (/[1-9k]/.test(pattern[i + 1] ?? '')) throw new ParseProblem('regular expressions with back references are refused', position);
      i++;
    } else if (char === '[') i = endOfClass(pattern, i);
    else if (char === '(') {
      if (/^\?(=|!|<=|<!)/.test(pattern.slice(i + 1, i + 4)))
        throw new ParseProblem('regular expressions with look-around are refused', position);
      groups.push(repeats);
      repeats = false;
    } else if (char === ')') {
      if (repeats && /[*+{]/.test(pattern[i + 1] ?? ''))
        throw new ParseProblem('a regular expression that repeats a group with a repetition or choice in it is refused', position);
      repeats = (groups.pop() ?? false) || repeats;
    } else if (char === '*' || char === '+' || char === '{' || char === '|') repeats = true;
  }
}

function endOfClass(pattern: string, start: number): number {
  for (let i = start + 1; i < pattern.length; i++) {
    if (pattern[i] === '\\') i++;
    else if (pattern[i] === ']') return i;
  }
  return pattern.length;
}
