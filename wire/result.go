package wire

import "encoding/binary"

// What a server answers a Query with, for answers that are the proxy's own: text
// columns in text format.

const oidText = 25

// AppendRowDescription names the columns of the rows to come.
func AppendRowDescription(dst []byte, columns []string) []byte {
	start := len(dst)
	dst = begin(dst, RowDescription)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(columns)))
	for _, name := range columns {
		dst = append(append(dst, name...), 0)
		dst = binary.BigEndian.AppendUint32(dst, 0) // of no table,
		dst = binary.BigEndian.AppendUint16(dst, 0) // no column of one
		dst = binary.BigEndian.AppendUint32(dst, oidText)
		dst = binary.BigEndian.AppendUint16(dst, 0xffff)     // of variable length,
		dst = binary.BigEndian.AppendUint32(dst, 0xffffffff) // without a modifier,
		dst = binary.BigEndian.AppendUint16(dst, 0)          // as text
	}
	return end(dst, start)
}

// AppendDataRow appends a row.
func AppendDataRow(dst []byte, values ...string) []byte {
	start := len(dst)
	dst = begin(dst, DataRow)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(values)))
	for _, v := range values {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(v)))
		dst = append(dst, v...)
	}
	return end(dst, start)
}

// AppendCommandComplete ends the answer to one statement.
func AppendCommandComplete(dst []byte, tag string) []byte {
	start := len(dst)
	dst = append(append(begin(dst, CommandComplete), tag...), 0)
	return end(dst, start)
}
